"""Results where people look already: JSON lines, TensorBoard, Weights & Biases."""

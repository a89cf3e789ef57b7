"""The database: queue and history at once. Import the modules; this package imports nothing."""

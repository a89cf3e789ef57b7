"""The text that the demo's tokenizer is made of and its training windows are cut from."""

from __future__ import annotations

TEXT = """\
The harbour wakes before the town does. At four in the morning the first lamps are lit along the
quay, and the men who mend the nets come down the hill with their collars turned up against the
wind. Nobody speaks much. There is the sound of water against stone, of ropes being pulled
tight, and now and then a gull that complains about the cold. By five the boats are out past the
long wall, and the women of the market are asking each other what the sea will give today.

A map is a way of leaving things out. The one that hangs in the school shows the capital, the
two largest rivers, the railway and the border, and nothing else. Whoever drew it thought that
these were the things a child should know: where the country ends, where its kings lived, and
how to get from one to the other. The hills are brown and the lakes are blue. In the corner
there is a small sun with a face, and below the sun a scale that says how many miles make an
inch.

Numbers are older than letters. Someone who kept sheep had to know that as many came home as had
left, and so cut a notch for each into a stick: one, two, three, four, five. If 3 sheep stand by
the wall and 4 more come through the gate, then 3 + 4 equals 7, and the stick agrees. From 1 + 1
to 12 + 30 it is the same trick. 10 - 6 is 4; 5 x 8 is 40; half of 96 is 48. Later came those
who asked what 7 divided by 0 should be, and they have not stopped talking since.

Our sun is a star of middling size. Around it go the planets, small ones of rock first, then the
large ones of gas and ice. The fourth is red and dusty, and the fifth is so large that all the
others would fit inside it. Between them lies a belt of stones that never became a world. A year
out there lasts as long as a childhood. Light needs eight minutes to reach us from the sun, and
four hours to reach the last of the planets, where noon is no brighter than our evening.

"How does a machine learn?" asked the youngest. "Like you," said the clockmaker, "by being wrong
a great many times, and by being told how wrong." She put a wheel on the table. "First you
guess. Then you measure the distance between what you guessed and what is true. Then you turn
every screw a little in the direction that makes the distance smaller. After a thousand turns
the guess is good, and nobody can say which of the screws did it." The child thought about that.
"And if you turn too far?" "Then you begin again, more slowly."

In the beginning the library was one shelf in the back of a bakery. People took a book with
their bread and brought it back with flour on the pages. When the shelf was full the baker built
another, and when the wall was full he gave up the oven. To be honest, the bread had never been
very good. Today there are lists of what is here and what is lent, there is a desk, a cat, and a
clock that is always eleven minutes late; but when it rains the rooms still smell of rye, and
the oldest books leave a white dust on your hands.

The question of the fence was settled by the dog. For nine years the two neighbours had argued
about where the field of the one ended and the garden of the other began. There were letters,
there was a lawyer, there was a quick, angry visit by a man with a brown coat and a measuring
chain. Then the lazy old dog, who knew nothing of all that, lay down under the plum tree and
stayed there. Whoever wanted to build a fence would have had to move him, and nobody was that
kind of person. So it is still one meadow.

Write it down, my teacher used to say: a thing that is not written has not happened. What was
the weather? Who was there? What did it cost? She kept her own life in forty small grey books,
one line for a day, and on the bad days there was only a date. I have them now. It is not true
that they are dull. Between the price of coal and the name of a train station somebody is in
love, somebody is dying, a war begins on a Friday, and on the next page, in the same blue ink:
planted beans, wind from the west, all quiet.
"""

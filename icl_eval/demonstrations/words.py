"""Words: everyday English nouns from which meaningless inputs are composed."""

_NOUNS = """
anchor apron attic badge bakery balcony banner barrel basket beach bench blanket border bottle bracket branch
brick bridge broom bucket bundle button cabin candle canvas carpet carriage cellar chair channel chimney clay
closet coast collar column comb copper corner cottage cotton counter cradle crate curtain cushion desk dial
ditch dock drawer drum easel elbow engine envelope fabric factory fence ferry field flute folder forest fountain
frame garage garden gate glove gravel hallway hammer handle harbor hedge hinge hook island jacket jar kettle
kitchen knot ladder lamp lantern lawn leather ledge letter lever lobby lock magnet map marble market mattress
meadow mirror mitten mortar motor needle notebook orchard oven paddle paint panel parcel path pavement pebble
pedal pencil pepper piano pillar pillow pipe plank plate platform pocket pond porch puddle pulley quarry quilt
rail ramp ribbon ridge rope saddle sail sand saw scarf scissors screw shelf shore shovel sleeve slope soap socket
spoon spring stable stair stamp statue stool stove straw string suitcase sweater table tent thread tile timber
towel tower trail tray trunk tunnel umbrella valley vase velvet wagon wallet warehouse well wheel whistle window
wire workshop yarn
"""

WORDS = tuple(_NOUNS.split())

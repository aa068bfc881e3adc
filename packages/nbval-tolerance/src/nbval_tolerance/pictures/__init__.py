"""Compare pictures: raster formats block by block, and SVG element by element. Pure functions."""

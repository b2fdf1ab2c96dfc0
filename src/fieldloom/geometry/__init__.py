"""Triangle meshes: what is inside of them, surfaces of fields, pictures without a display."""

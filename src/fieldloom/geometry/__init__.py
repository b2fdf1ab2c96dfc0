"""Triangle meshes: what is inside of them, surfaces of fields, images without a display."""

"""Training the bundled picture models from nothing, in order: vae, clip, dit; and the inspector that measures them."""

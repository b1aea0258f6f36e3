"""What moeship writes: safetensors shards, and ONNX graphs over them."""

"""Training on `transformers.Trainer`: Circle Loss over lists, with the encoder frozen (stage 1) or not (stage 2)."""

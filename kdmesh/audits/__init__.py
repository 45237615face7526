"""What a trained model tells of the samples that it learned from: a library of attacks and their statistics."""

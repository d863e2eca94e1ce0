"""How much labelled data an encoder needs: fine-tunings on nested fractions of a training set."""

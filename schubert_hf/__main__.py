"""`python -m schubert_hf` is the command `schubert`, for what starts modules: `accelerate launch -m schubert_hf`."""

from .commands import main

if __name__ == "__main__":
    main()

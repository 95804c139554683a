"""Operations between ranks; importable, so that kernels that name it load."""

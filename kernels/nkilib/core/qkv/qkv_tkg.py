def qkv_tkg(hidden):
    pass

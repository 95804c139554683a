def mlp_cte(a):
    return [a.hidden]

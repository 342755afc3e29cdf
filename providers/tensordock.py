class TensorDock:
    @classmethod
    def from_env(cls, env, **kw):
        return None

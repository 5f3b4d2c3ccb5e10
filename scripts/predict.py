from hsf_tune.cli.commands import run

if __name__ == "__main__":
    run("predict")

"""Saves the function as an MLflow model to the folder that is named as argument."""

import sys

import mlflow.pyfunc


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        from function import predict

        return {"response": predict(model_input)}


if __name__ == "__main__":
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Model())

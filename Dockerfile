# JupyterLab with the workshop on port 8888:  docker build -t shapeloss . && docker run -p 8888:8888 shapeloss
# On a machine with a GPU:  docker build --build-arg TORCH_INDEX=https://pypi.org/simple -t shapeloss .
FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libegl1 libgl1 libxrender1 make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /shapeloss
COPY . .
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN make .venv/.lab PIP_ARGS="--no-cache-dir --extra-index-url $TORCH_INDEX"
EXPOSE 8888
CMD ["make", "lab", "LAB_ARGS=--ip=0.0.0.0 --no-browser --allow-root"]

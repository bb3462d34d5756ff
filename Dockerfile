# JupyterLab with the workshop on port 8888:  docker build -t shapeloss . && docker run -p 8888:8888 shapeloss
# Without it, for runs and clusters:  docker build --target batch -t shapeloss-batch .
# Either for machines with a GPU:  docker build --build-arg TORCH_INDEX=https://pypi.org/simple …
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

FROM python:3.11-slim-bookworm AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libegl1 libgl1 libxrender1 make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /shapeloss
COPY . .

# Runs, and the steps of a cluster: Snakemake calls `python`, which is that of the environment.
FROM base AS batch
ARG TORCH_INDEX
RUN make .venv/.reproduce .venv/.cluster PIP_ARGS="--no-cache-dir --extra-index-url $TORCH_INDEX"
ENV PATH=/shapeloss/.venv/bin:$PATH PYTHONPATH=/shapeloss
CMD ["make", "reproduce"]

FROM base AS lab
ARG TORCH_INDEX
RUN make .venv/.lab PIP_ARGS="--no-cache-dir --extra-index-url $TORCH_INDEX"
EXPOSE 8888
CMD ["make", "lab", "LAB_ARGS=--ip=0.0.0.0 --no-browser --allow-root"]

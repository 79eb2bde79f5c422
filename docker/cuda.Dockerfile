# Impasto with TensorRT for NVIDIA GPUs in x86-64 machines. Not built yet: no machine with Docker was there.
#
#   make wheel
#   docker build -f docker/cuda.Dockerfile -t impasto .
#   docker run --rm --gpus all -v "$PWD:/work" impasto doctor
#
# NVIDIA's image brings TensorRT 10.13 with its Python module, CUDA 13.0 and Python 3.12.
ARG BASE=nvcr.io/nvidia/tensorrt:25.08-py3
FROM ${BASE}

# The image's own TensorRT module is a system package, so the environment must see those. PyCUDA is compiled.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --system-site-packages /opt/impasto
ENV PATH=/opt/impasto/bin:/usr/local/cuda/bin:$PATH

COPY dist/impasto-*.whl constraints.txt /tmp/
RUN pip install --no-cache-dir -c /tmp/constraints.txt "$(ls /tmp/impasto-*.whl)[cli,export,video,gpu]" \
    && rm /tmp/impasto-*.whl /tmp/constraints.txt

RUN useradd --create-home painter
USER painter
WORKDIR /work
ENTRYPOINT ["impasto"]
CMD ["--help"]

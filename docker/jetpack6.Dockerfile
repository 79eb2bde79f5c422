# Impasto with TensorRT for Jetson Orin under JetPack 6.1 and 6.2. Not built yet: no Jetson was there.
#
#   make wheel
#   docker build -f docker/jetpack6.Dockerfile -t impasto .            # on the Jetson
#   docker run --rm --runtime nvidia -v "$PWD:/work" impasto doctor
#
# NVIDIA's image brings TensorRT 10.3 with its Python module, CUDA 12.6 and Python 3.10. For JetPack 6.0 and TensorRT 8.6:
#   --build-arg BASE=nvcr.io/nvidia/l4t-jetpack:r36.3.0
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
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

RUN useradd --create-home --groups video painter
USER painter
WORKDIR /work
ENTRYPOINT ["impasto"]
CMD ["--help"]

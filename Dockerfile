# adaptkit and its plugins in a container. On a CPU:
#   docker build -t adaptkit .
# On GPUs, with the torch that an image of CUDA has, and without the versions of constraints.txt:
#   docker build -t adaptkit --build-arg BASE=pytorch/pytorch:2.11.0-cuda12.8-cudnn9-devel \
#     --build-arg EXTRAS=all,deepspeed,bitsandbytes --build-arg CONSTRAINTS=/dev/null .
# Then:
#   docker run --rm -it -v "$PWD:/work" adaptkit train iaa_vision_tiny
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG EXTRAS=all
ARG CONSTRAINTS=constraints.txt

WORKDIR /opt/adaptkit
COPY . .
RUN python -m pip wheel --quiet --no-cache-dir --no-deps --wheel-dir /tmp/wheels . ./plugins/* \
    && python -m pip install --quiet --no-cache-dir --constraint "${CONSTRAINTS}" --find-links /tmp/wheels "inner-adaptkit[${EXTRAS}]" \
    && rm -rf /tmp/wheels /opt/adaptkit \
    && adaptkit --version

WORKDIR /work
ENTRYPOINT ["adaptkit"]

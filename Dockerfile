# docker build -t syncdiff . && docker run --rm -p 7860:7860 syncdiff
# For the small CPU build of PyTorch: --build-arg TORCH=torch==2.13.0+cpu --build-arg PIP_EXTRA_INDEX_URL=(see Makefile)
FROM python:3.12-slim-bookworm
ARG TORCH=torch==2.13.0
ARG PIP_EXTRA_INDEX_URL
WORKDIR /app
COPY packages.txt requirements.txt ./
RUN apt-get update && xargs -a packages.txt apt-get install -y --no-install-recommends && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir "$TORCH" && pip install --no-cache-dir -r requirements.txt
COPY app.py ./
COPY assets ./assets
COPY syncdiff ./syncdiff
RUN useradd --create-home --uid 1000 visitor
USER visitor
ENV GRADIO_SERVER_NAME=0.0.0.0 HF_HUB_OFFLINE=1
EXPOSE 7860
CMD ["python", "app.py"]

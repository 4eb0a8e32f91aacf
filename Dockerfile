# The builder runs on the machine's own platform and cross-compiles.
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
# Modules first: a change of code alone does not download them again.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=development
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-X main.version=$VERSION" -o /out/tokenbroker ./cmd/tokenbroker

FROM scratch
# To verify the issuer's and Redis's certificates.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/tokenbroker /tokenbroker
# A number, not a name: Kubernetes' runAsNonRoot can only verify a number.
USER 65532:65532
# gRPC, and the operator's HTTP.
EXPOSE 9090 9091
# In the exec form, as there is no shell in the image.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/tokenbroker", "health"]
ENTRYPOINT ["/tokenbroker"]
CMD ["serve"]

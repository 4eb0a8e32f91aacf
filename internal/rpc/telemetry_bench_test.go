package rpc_test

import (
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/tracing"
)

// BenchmarkTelemetry is what telemetry costs a GetToken that is answered from memory,
// over loopback, both ends counted: without any (the yardstick), with metrics as production has
// them, and with traces of which none is sampled beside these. The houses take turns
// of twenty calls, in a random order, and what counts is the time that the
// processors have worked: so it matters little what else the machine does. The
// percentages are medians of what a turn takes more than the yardstick's turn beside it.
func BenchmarkTelemetry(b *testing.B) {
	exporter, err := tracing.Start(tracing.Config{Endpoint: "127.0.0.1:1", Plaintext: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { exporter.Close(b.Context()) })
	houses := []struct {
		name   string
		tokens pb.TokenServiceClient
	}{
		{"bare", loopback(b, furniture{bare: true})},
		{"metrics", loopback(b, furniture{})},
		{"unsampled", loopback(b, furniture{tracer: exporter.Tracer()})},
	}
	const turn = 20
	take := func(n int) time.Duration {
		began := processorTime(b)
		for range turn {
			if _, err := houses[n].tokens.GetToken(b.Context(), typical); err != nil {
				b.Fatal(err)
			}
		}
		return (processorTime(b) - began) / turn
	}
	for range 50 {
		for n := range houses {
			take(n)
		}
	}
	times, more := make([][]float64, len(houses)), make([][]float64, len(houses))
	for b.Loop() {
		took := make([]float64, len(houses))
		for _, n := range rand.Perm(len(houses)) {
			took[n] = float64(take(n))
		}
		for n := range houses {
			times[n] = append(times[n], took[n])
			more[n] = append(more[n], 100*(took[n]/took[0]-1))
		}
	}
	b.ReportMetric(0, "ns/op")
	for n, house := range houses {
		b.ReportMetric(median(times[n]), "ns/"+house.name)
		if n > 0 {
			b.ReportMetric(median(more[n]), "%/"+house.name)
		}
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// processorTime returns how long processors have worked for this process.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// loopback returns a client of a house over a socket.
func loopback(b *testing.B, f furniture) pb.TokenServiceClient {
	h := newHouse(b, f)
	h.register(b, "acme-law")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = h.server.Serve(l) }() // Until the house is closed.
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return pb.NewTokenServiceClient(conn)
}

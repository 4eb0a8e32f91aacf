// Package bench measures the broker beside what it can be compared with, in the same
// run: a bare gRPC server that answers with as many bytes, the broker that people write
// first, which reads Redis for each call, and callers that keep tokens of their own.
//
// All of it is in tests, since what it is built of, a real Redis, certificates, an
// issuer, is there for tests. "make bench" runs it as a measurement, "make test" so
// briefly that it shows no more than that it works.
package bench

package main

import "strings"

// reasonAdvice says what to do about a refusal, by the reason of the API.
var reasonAdvice = map[string]string{
	"TENANT_NOT_FOUND":     `"tokenbroker tenants list" shows those that there are`,
	"TENANT_EXISTS":        `"tokenbroker tenants update" changes it`,
	"ETAG_MISMATCH":        `look at it with "tokenbroker tenants get", and repeat the change with its etag`,
	"TENANT_UNREADABLE":    `compare the server's keyset with that of the others ("tokenbroker keyset show"), or delete the tenant and create it anew`,
	"REGISTRY_LOST":        `restore it with "tokenbroker tenants import"`,
	"STORE_UNAVAILABLE":    `the server's log, and "tokenbroker doctor" there, say what is wrong with Redis. If this was a change, it may have been made all the same: read the tenant to know`,
	"AUDIT_UNAVAILABLE":    "the server's log says what is wrong with its audit log",
	"UNAUTHENTICATED":      "show a certificate (--cert-file, --key-file) or a token (--jwt-file) that the server takes, and that has not expired",
	"NOT_ALLOWED":          `a rule must allow it: "tokenbroker access explain" on the server says which there are`,
	"CREDENTIALS_REJECTED": "nothing was changed. Compare client id, client secret, region and environment with Smokeball's Developer Console",
	"SCOPE_REJECTED":       "nothing was changed. Compare the tenant's scopes with those of the app in Smokeball's Developer Console",
	"ISSUER_UNAVAILABLE":   "nothing was changed. Try again later, or --skip-verification if the secret is known to be good",
	"ISSUER_THROTTLED":     "nothing was changed. Try again later, or --skip-verification if the secret is known to be good",
}

// connectionTroubles are what gRPC and TLS say when there is no connection, and what
// to do about it. The first that fits counts.
var connectionTroubles = []struct{ says, advice string }{
	{"connection refused", "nothing listens at ADDR: start the server there, or correct --addr"},
	{"no such host", "the name in --addr, ADDR, has no address: correct it, or the DNS of this machine"},
	{"no children to pick from", "the name in --addr, ADDR, has no address: correct it, or the DNS of this machine"},
	{"signed by unknown authority", "the server's certificate is of an authority that is not known here: name that in --ca-file"},
	{"the client's certificate has expired", "have the certificate in --cert-file issued anew"},
	{"code = Unauthenticated", reasonAdvice["UNAUTHENTICATED"]},
	{"certificate has expired", "the server's certificate has expired, or the clock of this machine is wrong"},
	{"certificate is valid for", "the server's certificate is for other names than that in --addr, ADDR: use one of those"},
	{"cannot validate certificate for", "the server's certificate is for other names than that in --addr, ADDR: use one of those"},
	{"certificate required", "the server wants a certificate: --cert-file and --key-file"},
	{"remote error: tls", "the server does not take the certificate in --cert-file: it may have expired, or be of an authority that the server does not know"},
	{"first record does not look like a TLS handshake", "the server speaks no TLS: --insecure, on its own machine"},
	{"error reading server preface", "the server speaks TLS, or is none of this kind: try without --insecure"},
}

// connectionAdvice says what to do when no server could be asked, for what was said
// then.
func connectionAdvice(said, addr string) string {
	for _, trouble := range connectionTroubles {
		if strings.Contains(said, trouble.says) {
			return strings.ReplaceAll(trouble.advice, "ADDR", addr)
		}
	}
	return "no ready server was reached at " + addr + ": check --addr, --ca-file, and that the server wants what you show (--cert-file, --jwt-file or --insecure)"
}

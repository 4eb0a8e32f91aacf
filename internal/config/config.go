// Package config holds the settings of a production server. Each is a flag, an
// environment variable and a key of the YAML file, under one name: --redis-url,
// TOKENBROKER_REDIS_URL, redis-url. A flag goes before a variable, a variable
// before the file.
package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"smokeball.internal/tokenbroker/internal/audit"
	"smokeball.internal/tokenbroker/internal/logging"
	"smokeball.internal/tokenbroker/internal/smokeball"
)

// Serve is the settings of "tokenbroker serve".
type Serve struct {
	Config kong.ConfigFlag `placeholder:"FILE" help:"YAML file with settings, under the names of these flags without the dashes in front."`

	GRPCAddr string `name:"grpc-addr" default:"127.0.0.1:9090" placeholder:"HOST:PORT" help:"Address of the gRPC API. Default ${default}."`
	OpsAddr  string `name:"ops-addr" default:"127.0.0.1:9091" placeholder:"HOST:PORT" help:"Address for operators: /metrics, /livez, /readyz, /status over HTTP. Default ${default}."`
	OpsTLS   bool   `name:"ops-tls" help:"Serve --ops-addr over TLS, with the certificate of the API. Callers who prove who they are may see the status page, as the access file has it. See docs/status.md."`

	Redis `embed:""`

	TLSCertFile   string `name:"tls-cert-file" placeholder:"FILE" help:"Certificate chain of the gRPC API, PEM."`
	TLSKeyFile    string `name:"tls-key-file" placeholder:"FILE" help:"Its private key, PEM."`
	TLSMinVersion string `name:"tls-min-version" default:"1.3" enum:"1.2,1.3" placeholder:"VERSION" help:"Lowest version of TLS: 1.3, or 1.2 for callers that cannot do better. Default ${default}."`
	Insecure      bool   `help:"Serve plain text, and take everyone for an administrator. Refused for other than loopback addresses."`

	Callers `embed:""`

	Audit       string `default:"stdout" placeholder:"SINK" help:"Where the audit log goes: stdout, file:PATH, syslog, syslog:udp://HOST:PORT, syslog:tcp://HOST:PORT, or none. See docs/security.md. Default ${default}."`
	AuditStrict bool   `name:"audit-strict" help:"Refuse tokens, too, while the audit log cannot be written. Changes of tenants are refused then in any case."`

	IssuerOverride []string `name:"issuer-override" placeholder:"REGION/ENVIRONMENT=URL" help:"Token endpoint to use in place of Smokeball's, for example us/production=https://host/oauth2/token. May be repeated. http:// only to loopback."`
	APIOverride    []string `name:"api-override" placeholder:"REGION/ENVIRONMENT=URL" help:"Address of the API to tell callers in place of Smokeball's, for example us/production=https://host/smokeball. They send tokens and API keys there. May be repeated. http:// only to loopback."`

	Traces `embed:""`

	ExchangeRate float64       `name:"exchange-rate" default:"25" placeholder:"NUMBER" help:"Exchanges per second that the whole fleet allows itself with one issuer, and twice as many at once after a quiet time. Who waits goes first. AWS allows 150 to all of Smokeball's partners together. Default ${default}."`
	TokenPrice   float64       `name:"token-price" default:"0.00225" placeholder:"NUMBER" help:"What a token costs, for the metrics of cost, in the currency that they are to have; 0: no such metrics. The default is AWS's first tier, in US$. Default ${default}."`
	MaxStaleness time.Duration `name:"max-staleness" default:"24h" placeholder:"DURATION" help:"How long tenants in memory are served while Redis is not heard, or has lost its registry: a tenant may have been disabled meanwhile. Default ${default}."`

	MaxConnectionAge time.Duration `name:"max-connection-age" default:"5m" placeholder:"DURATION" help:"Ends gRPC connections of this age, so that a load balancer can spread them; 0: never. Default ${default}."`
	DrainTimeout     time.Duration `name:"drain-timeout" default:"30s" placeholder:"DURATION" help:"How long calls under way may take to finish after SIGTERM. Default ${default}."`
	LogLevel         string        `name:"log-level" default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"debug, info, warn or error. It can be changed while the server runs, see docs/telemetry.md. Default ${default}."`
	LogFormat        string        `name:"log-format" default:"json" enum:"json,text" placeholder:"FORMAT" help:"json or text. Default ${default}."`
}

const (
	// An exchange may wait for its turn for ten seconds, which at less than this
	// would be too short for any.
	minExchangeRate = 0.2
	// More than all that AWS allows an account.
	maxExchangeRate = 1000
	// In no currency a token costs more.
	maxTokenPrice = 1_000_000
	// Changes are heard of twice a second; a restart of Redis takes longer.
	minStaleness = 10 * time.Second
)

// Validate refuses settings that do not go together: its error is the first of
// what is wrong. Kong calls it.
func (c *Serve) Validate() error {
	if wrong := c.wrong(); len(wrong) > 0 {
		return wrong[0]
	}
	return nil
}

// Problems returns everything for which kong would refuse the settings, its parts
// included; nil if that is nothing.
func (c *Serve) Problems() []error {
	wrong := c.wrong()
	for _, err := range []error{c.Redis.Validate(), c.Callers.Validate(), c.Traces.Validate()} {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	return wrong
}

// wrong returns which settings do not go together.
func (c *Serve) wrong() (found []error) {
	when := func(wrong bool, err error) {
		if wrong {
			found = append(found, err)
		}
	}
	for _, addr := range []struct{ flag, value string }{{"--grpc-addr", c.GRPCAddr}, {"--ops-addr", c.OpsAddr}} {
		_, port, err := net.SplitHostPort(addr.value)
		when(err != nil || port == "", fmt.Errorf("%s=%s: want HOST:PORT", addr.flag, addr.value))
	}
	err := audit.ValidateSink(c.Audit)
	when(err != nil, fmt.Errorf("--audit: %w", err))
	withTLS := c.TLSCertFile != "" || c.TLSKeyFile != ""
	when(c.Insecure && (withTLS || c.Callers.any()),
		errors.New("--insecure, which takes everyone for an administrator, excludes TLS files, client authorities, an access file and bearer tokens"))
	when(c.Insecure && !loopback(c.GRPCAddr),
		fmt.Errorf("--insecure is refused for --grpc-addr=%s: everyone who reaches it would be an administrator; use a loopback address, or TLS files", c.GRPCAddr))
	when(c.Insecure && c.OpsTLS,
		errors.New("--ops-tls needs --tls-cert-file and --tls-key-file, which --insecure excludes"))
	when(!c.Insecure && (c.TLSCertFile == "" || c.TLSKeyFile == ""),
		errors.New("--tls-cert-file and --tls-key-file are needed (or --insecure, on a loopback address)"))
	when(!c.Insecure && c.ClientCAFile == "" && c.JWTIssuer == "",
		errors.New("--client-ca-file or --jwt-issuer is needed, since nobody else is served (or --insecure, on a loopback address)"))
	when(!c.Insecure && c.AccessFile == "",
		errors.New("--access-file is needed, since nobody may do anything without a rule (or --insecure, on a loopback address)"))
	when(!(c.ExchangeRate >= minExchangeRate && c.ExchangeRate <= maxExchangeRate), // Nor NaN.
		fmt.Errorf("--exchange-rate must be from %v to %v", minExchangeRate, maxExchangeRate))
	when(!(c.TokenPrice >= 0 && c.TokenPrice <= maxTokenPrice), // Nor NaN.
		fmt.Errorf("--token-price must be from 0 to %v", maxTokenPrice))
	when(c.MaxStaleness < minStaleness,
		fmt.Errorf("--max-staleness must be %v at least", minStaleness))
	when(c.MaxConnectionAge < 0 || c.DrainTimeout < 0,
		errors.New("--max-connection-age and --drain-timeout must not be negative"))
	_, err = c.Overrides()
	when(err != nil, err)
	return found
}

// loopback says whether an address to listen on can be reached from this host
// only. A name is not looked up, so "localhost" is the only one.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Overrides returns the addresses that are not Smokeball's.
func (c *Serve) Overrides() (smokeball.Overrides, error) {
	endpoints, err := parseOverrides("issuer override", c.IssuerOverride)
	if err != nil {
		return nil, err
	}
	apis, err := parseOverrides("API override", c.APIOverride)
	if err != nil {
		return nil, err
	}
	overrides := smokeball.Overrides{}
	for place, endpoint := range endpoints {
		overrides[place] = smokeball.Addresses{TokenEndpoint: endpoint}
	}
	for place, api := range apis {
		overrides[place] = smokeball.Addresses{TokenEndpoint: endpoints[place], API: strings.TrimRight(api, "/")}
	}
	return overrides, nil
}

func parseOverrides(name string, texts []string) (map[smokeball.Place]string, error) {
	addresses := map[smokeball.Place]string{}
	for _, s := range texts {
		place, address, err := smokeball.ParseOverride(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if _, twice := addresses[place]; twice {
			return nil, fmt.Errorf("%s: %s is given twice", name, place)
		}
		addresses[place] = address
	}
	return addresses, nil
}

// Logger returns a logger that writes to w, and its level, which may be changed.
func (c *Serve) Logger(w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	_ = level.UnmarshalText([]byte(c.LogLevel)) // One of the enum above.
	return logging.New(w, logging.Format(c.LogFormat), level), level
}

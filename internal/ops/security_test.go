package ops_test

import (
	"strings"
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/ops"
)

func TestTheEndsOfCertificatesAreShown(t *testing.T) {
	server, authorities := time.Unix(1_800_000_000, 0), time.Time{}
	c := ops.CertificateMetrics(func() (time.Time, time.Time) { return server, authorities })
	only := shown(t, c)
	wantLines(t, only, `tokenbroker_certificate_expiry_timestamp_seconds{certificate="server"} 1.8e+09`)
	if strings.Contains(only, "client_ca\"") {
		t.Error("there are no authorities of callers, but an end of them")
	}
	authorities = time.Unix(1_900_000_000, 0)
	wantLines(t, shown(t, c), `tokenbroker_certificate_expiry_timestamp_seconds{certificate="client_ca"} 1.9e+09`)
}

func TestTheProgramIsNamed(t *testing.T) {
	page := shown(t, ops.BuildInfo("v1.2.3"))
	if !strings.Contains(page, `version="v1.2.3"} 1`) || !strings.Contains(page, `{goversion="go`) {
		t.Errorf("shown: %s", page)
	}
}

package main_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// dev is a running "tokenbroker dev".
type dev struct {
	*process
	simulator string // its URL
}

func startDev(t *testing.T) *dev {
	t.Helper()
	cmd := exec.Command(binary, "dev", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--simulator-addr=127.0.0.1:0")
	var stdout, stderr logBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of dev:\n%s", stderr.String())
		}
	})
	var said []string
	until(t, "serving", func() bool {
		said = regexp.MustCompile(`(?s)Smokeball on (\S+).*msg=serving grpc=(\S+) ops=(\S+)`).FindStringSubmatch(stdout.String() + stderr.String())
		return said != nil
	})
	d := &dev{&process{t: t, grpc: said[2], ops: said[3]}, said[1]}
	d.ready()
	return d
}

// control has the simulated Smokeball do something.
func (d *dev) control(method, path, body string) {
	d.t.Helper()
	req, err := http.NewRequest(method, d.simulator+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		d.t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
}

// bought returns how many tokens a client has bought.
func (d *dev) bought(client string) int {
	d.t.Helper()
	resp, err := http.Get(d.simulator + "/control")
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var state struct {
		Clients []struct {
			ID     string `json:"client_id"`
			Bought int
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil {
		d.t.Fatal(err)
	}
	for _, c := range state.Clients {
		if c.ID == client {
			return c.Bought
		}
	}
	d.t.Fatalf("there is no client %s", client)
	return 0
}

const (
	acmesMatters = `tenants/acme ACM-101 Open    Sale of 12 Harbour Street
tenants/acme ACM-102 Pending Lease review
tenants/acme ACM-103 Closed  Estate of E. Okoro
`
	globexsMatters = `tenants/globex GLO-101 Open    Sale of 12 Harbour Street
tenants/globex GLO-102 Pending Lease review
tenants/globex GLO-103 Closed  Estate of E. Okoro
`
)

// TestTheGoExample runs the service that others are to copy from.
func TestTheGoExample(t *testing.T) {
	t.Parallel()
	example := filepath.Join(t.TempDir(), "example")
	build := goBuild(t.Context(), "-o", example, "./examples/go")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d := startDev(t)
	run := func(t *testing.T, code int, want, wantError string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), example, "-broker", d.grpc)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		var stdout, stderr logBuffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // The exit code says it.
		if got := cmd.ProcessState.ExitCode(); got != code || stdout.String() != want || !strings.Contains(stderr.String(), wantError) {
			t.Errorf("exit code %d, it prints\n%s%swant exit code %d, and\n%s%s", got, stdout.String(), stderr.String(), code, want, wantError)
		}
	}

	run(t, 0, acmesMatters+globexsMatters, "")

	// A token that Smokeball rejects is replaced.
	d.control(http.MethodDelete, "/control/tokens/*", "")
	run(t, 0, acmesMatters+globexsMatters, "")
	if acme, globex := d.bought("acme-client"), d.bought("globex-client"); acme != 2 || globex != 2 {
		t.Errorf("%d and %d tokens were bought, want two each", acme, globex)
	}

	// One that it goes on rejecting is an error, and not another exchange: it has just been
	// replaced.
	d.control(http.MethodPut, "/control/api-faults/acme-client", `{"kind": "status", "status": 401}`)
	run(t, 1, globexsMatters, "list the matters of tenants/acme: smokeball answers 401 Unauthorized")
	if acme := d.bought("acme-client"); acme != 2 {
		t.Errorf("%d tokens were bought for a Smokeball that rejects all, want none but the two before", acme)
	}
	d.control(http.MethodDelete, "/control/api-faults/acme-client", "")

	// A firm that an administrator has switched off is left out.
	_, err := pb.NewTenantServiceClient(d.connect()).UpdateTenant(t.Context(), &pb.UpdateTenantRequest{
		Tenant: &pb.Tenant{Name: "tenants/globex", State: pb.Tenant_STATE_DISABLED},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, 0, acmesMatters+"tenants/globex is left out: TENANT_DISABLED\n", "")
}

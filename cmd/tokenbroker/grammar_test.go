package main_test

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// secretWords are those of settings that could hold a secret.
var secretWords = regexp.MustCompile(`secret|password|passwd|token|jwt|api-key|key|credential|bearer|url`)

// harmless are settings that sound like a secret and hold none, and why.
var harmless = map[string]string{
	"access-file":     "a file",
	"fallback-ttl":    "a time",
	"token-lifetime":  "a time, of dev",
	"jwt-issuer":      "a name",
	"jwt-audience":    "names",
	"jwt-keys":        "public keys, in a file or at a URL, which is refused with a password",
	"kms-key-uri":     "the name of a key",
	"issuer-override": "an address, which is refused with a password",
	"api-override":    "an address, which is refused with a password",
	"token-price":     "a number",
	// A password in it is better kept in --redis-password-file; nothing repeats it.
	"redis-url": "for a Redis that has none",
}

// Arguments are seen by everybody on the machine (ps). No secret is one: all come from
// files, or from a prompt.
func TestNoSecretIsAnArgument(t *testing.T) {
	t.Parallel()
	seen := 0
	for _, command := range commandsOf(t) {
		help, err := exec.Command(binary, append(command, "--help")...).Output()
		if err != nil {
			t.Fatalf("%v: %v", command, err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\s+(?:-\w, )?--(?:\[no-\])?([a-z-]+)(?:=(\S+))?`).FindAllStringSubmatch(string(help), -1) {
			name, value := m[1], m[2]
			seen++
			if value == "" || !secretWords.MatchString(name) { // A switch holds nothing.
				continue
			}
			if harmless[name] == "" && !(strings.HasSuffix(name, "-file") && strings.HasPrefix(value, "FILE")) {
				t.Errorf("%s: is --%s=%s a secret? It must come from a file, or be said to be harmless here", strings.Join(command, " "), name, value)
			}
		}
		for _, m := range regexp.MustCompile(`(?m)^  \[?<([a-z-]+)>`).FindAllStringSubmatch(string(help), -1) {
			if secretWords.MatchString(m[1]) {
				t.Errorf("%s: is the argument <%s> a secret?", strings.Join(command, " "), m[1])
			}
		}
	}
	if seen < 100 {
		t.Errorf("%d flags were looked at", seen)
	}
}

// commandsOf returns every command there is, as the binary completes them.
func commandsOf(t *testing.T) (all [][]string) {
	t.Helper()
	var walk func(path []string)
	walk = func(path []string) {
		out, err := exec.Command(binary, slices.Concat([]string{"complete", "--"}, path, []string{""})...).Output()
		if err != nil {
			t.Fatal(err)
		}
		children := strings.Fields(string(out))
		if len(children) == 0 || slices.Contains(path, "completion") {
			all = append(all, path)
			return
		}
		for _, child := range children {
			walk(append(slices.Clone(path), child))
		}
	}
	walk(nil)
	if len(all) < 20 {
		t.Errorf("there are %d commands", len(all))
	}
	return all
}

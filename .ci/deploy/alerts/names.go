package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

var (
	// What is in an expression beside names of metrics, functions and operators. What is
	// in quotes goes first: it may have a bracket in it.
	quoted   = regexp.MustCompile(`"[^"]*"|#[^\n]*`)
	notNames = regexp.MustCompile(`\{[^}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right) *\([^)]*\)`)
	word     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*( *\()?`)
	// Names in a table of metrics; `go_*` stands for all that begin so.
	cell = regexp.MustCompile("`([a-z_:][a-z0-9_:]*\\*?)(?:\\{[^`]*)?`")
)

// Words that are neither metrics nor functions.
var operators = []string{"and", "or", "unless", "bool", "offset"}

// Metrics that are Prometheus's own.
var ofPrometheus = []string{"up", "ALERTS"}

// metrics returns the names of the metrics in an expression.
func metrics(expr string) []string {
	var names []string
	for _, w := range word.FindAllString(notNames.ReplaceAllString(quoted.ReplaceAllString(expr, ""), " "), -1) {
		if !strings.HasSuffix(w, "(") && !slices.Contains(operators, w) && !number(w) {
			names = append(names, w)
		}
	}
	return names
}

// number says whether a word is the exponent or the like of a number.
func number(w string) bool { return w == "e" || w == "Inf" || w == "NaN" }

// readTable returns the names of metrics in the table, by whether they are there.
func readTable(path string) (map[string]bool, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, match := range cell.FindAllStringSubmatch(string(content), -1) {
		known[match[1]] = true
	}
	if !known["tokenbroker_answers_total"] {
		return nil, fmt.Errorf("%s is no table of metrics", path)
	}
	return known, nil
}

// named returns an error for each query that names a metric which is neither known,
// nor recorded, nor Prometheus's own.
func named(queries []query, known map[string]bool, recorded []string) error {
	var found []error
	for _, q := range queries {
		for _, name := range metrics(q.expr) {
			family := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				family = strings.TrimSuffix(family, suffix)
			}
			beginning, _, _ := strings.Cut(name, "_")
			if !known[name] && !known[family] && !known[beginning+"_*"] && !slices.Contains(recorded, name) && !slices.Contains(ofPrometheus, name) {
				found = append(found, fmt.Errorf("%s: there is no metric %s", q.where, name))
			}
		}
	}
	return errors.Join(found...)
}

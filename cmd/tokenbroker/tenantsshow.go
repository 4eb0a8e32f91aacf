package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// writeJSON writes a message. The spaces that protojson varies are made anew, so that
// the same is written the same.
func writeJSON(w io.Writer, m proto.Message) error {
	text, err := protojson.Marshal(m)
	if err != nil {
		return err
	}
	return writeIndented(w, text)
}

// writeJSONArray is writeJSON for tenants.
func writeJSONArray(w io.Writer, tenants []*pb.Tenant) error {
	var all [][]byte
	for _, t := range tenants {
		text, err := protojson.Marshal(t)
		if err != nil {
			return err
		}
		all = append(all, text)
	}
	return writeIndented(w, slices.Concat([]byte("["), bytes.Join(all, []byte(",")), []byte("]")))
}

func writeIndented(w io.Writer, text []byte) error {
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, strings.TrimSpace(indented.String()))
	return err
}

// writeTenants writes a table with a line for each tenant.
func writeTenants(w io.Writer, tenants []*pb.Tenant) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "TENANT\tREGION\tENVIRONMENT\tSTATE\tCLIENT ID\tNAME")
	for _, t := range tenants {
		region, environment, state := places(t)
		if t.GetRegion() == pb.Region_REGION_UNSPECIFIED {
			region, environment, state = "-", "-", "unreadable"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", printable(strings.TrimPrefix(t.GetName(), "tenants/")), region, environment, state,
			cmp.Or(printable(t.GetClientId()), "-"), cmp.Or(printable(t.GetDisplayName()), "-"))
	}
	return table.Flush()
}

func places(t *pb.Tenant) (region, environment, state string) {
	return word(t.GetRegion(), "REGION_"), word(t.GetEnvironment(), "ENVIRONMENT_"), word(t.GetState(), "STATE_")
}

// writeTenant writes what there is to know about a tenant, a line for each field.
func writeTenant(w io.Writer, t *pb.Tenant) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(table, "%s\t%s\n", name, printable(value))
		}
	}
	at := func(name string, when *timestamppb.Timestamp) {
		if when != nil {
			line(name, stamp(when.AsTime()))
		}
	}
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(t.GetLabels())) {
		labels = append(labels, key+"="+t.GetLabels()[key])
	}
	region, environment, state := places(t)
	line("tenant", t.GetName())
	line("name", t.GetDisplayName())
	line("region", region)
	line("environment", environment)
	line("state", state)
	line("client id", t.GetClientId())
	line("account id", t.GetAccountId())
	line("scopes", strings.Join(t.GetScopes(), " "))
	line("labels", strings.Join(labels, ", "))
	line("keep warm", fmt.Sprint(t.GetKeepWarm()))
	at("created", t.GetCreateTime())
	at("changed", t.GetUpdateTime())
	at("secret since", t.GetClientSecretUpdateTime())
	line("etag", t.GetEtag())
	at("old secret until", t.GetFallbackSecretExpireTime())
	s := t.GetStatus()
	at("token bought", s.GetLastRefreshTime())
	at("token expires", s.GetTokenExpireTime())
	at("next refresh", s.GetNextRefreshTime())
	if f := s.GetLastFailure(); f != nil {
		line("last failure", f.GetMessage()+" ("+f.GetReason()+")")
		at("tried again", f.GetRetryTime())
	}
	return table.Flush()
}

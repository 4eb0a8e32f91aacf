package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	bootstrap "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	// The messages that envoy.yaml has in a typed_config.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/types/descriptorpb"
	"sigs.k8s.io/yaml"
)

// checkEnvoy reads a configuration as Envoy does: it refuses what there is no
// field for, and values that a field may not have.
func checkEnvoy(_ context.Context, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	json, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	var config bootstrap.Bootstrap
	if err := protojson.Unmarshal(json, &config); err != nil {
		return err
	}
	found := []error{config.ValidateAll()}
	err = protorange.Range(config.ProtoReflect(), func(p protopath.Values) error {
		switch at := p.Index(-1); at.Step.Kind() {
		case protopath.AnyExpandStep: // The rules of a message do not reach what is of any type in it.
			if m, ok := at.Value.Message().Interface().(interface{ ValidateAll() error }); ok {
				found = append(found, m.ValidateAll())
			}
		case protopath.FieldAccessStep:
			if o, ok := at.Step.FieldDescriptor().Options().(*descriptorpb.FieldOptions); ok && o.GetDeprecated() {
				found = append(found, fmt.Errorf("%v is deprecated", p.Path))
			}
		}
		return nil
	})
	return errors.Join(append(found, err)...)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// secrets is what docs/kubernetes.md has people make.
var secrets = map[string][]string{
	"tokenbroker-keyset": {"keyset.json"},
	"tokenbroker-redis":  {"password", "ca.crt"},
	"tokenbroker-tls":    {"tls.crt", "tls.key"},
}

// fit sees that everything that selects pods selects the broker's.
func (o *objects) fit() error {
	var found []error
	template := o.deployment.Spec.Template
	selects := func(who string, selector *meta.LabelSelector) {
		s, err := meta.LabelSelectorAsSelector(selector)
		if err != nil || s.Empty() || !s.Matches(labels.Set(template.Labels)) {
			found = append(found, fmt.Errorf("%s does not select the pods", who))
		}
	}
	selects("the Deployment", o.deployment.Spec.Selector)
	selects("the PodDisruptionBudget", o.budget.Spec.Selector)
	selects("the NetworkPolicy", &o.network.Spec.PodSelector)
	selects("the Service", &meta.LabelSelector{MatchLabels: o.service.Spec.Selector})
	for _, c := range template.Spec.TopologySpreadConstraints {
		selects("the spread over "+c.TopologyKey, c.LabelSelector)
	}
	if len(template.Spec.TopologySpreadConstraints) == 0 {
		found = append(found, errors.New("replicas may all be on one node"))
	}
	target := o.autoscaler.Spec.ScaleTargetRef
	if target.Kind != "Deployment" || target.Name != o.deployment.Name {
		found = append(found, errors.New("the autoscaler scales something else"))
	}
	if o.deployment.Spec.Replicas != nil {
		found = append(found, errors.New("the Deployment sets back what the autoscaler has decided"))
	}
	if spare := o.budget.Spec.MaxUnavailable; spare == nil || o.autoscaler.Spec.MinReplicas == nil || int(*o.autoscaler.Spec.MinReplicas) < spare.IntValue()+2 {
		found = append(found, errors.New("with one node being emptied, the loss of another ends service"))
	}
	if template.Spec.ServiceAccountName != o.account.Name {
		found = append(found, errors.New("the pod has another ServiceAccount"))
	}
	if o.service.Spec.ClusterIP != core.ClusterIPNone {
		found = append(found, errors.New("the Service has a cluster IP"))
	}
	if len(o.network.Spec.PolicyTypes) != 2 {
		found = append(found, errors.New("the NetworkPolicy leaves a direction open"))
	}
	return errors.Join(found...)
}

// mounted sees that every file that a setting names is in something that is mounted.
func (o *objects) mounted() error {
	var found []error
	pod := o.deployment.Spec.Template.Spec
	files := map[string]bool{}
	for _, mount := range pod.Containers[0].VolumeMounts {
		i := slices.IndexFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == mount.Name })
		if i < 0 || !mount.ReadOnly || mount.SubPath != "" {
			found = append(found, fmt.Errorf("%s must be a volume that is mounted whole and to read only", mount.Name))
			continue
		}
		var names []string
		switch v := pod.Volumes[i]; {
		case v.Secret != nil:
			if v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440 {
				found = append(found, fmt.Errorf("secret %s can be read by others", v.Secret.SecretName))
			}
			names = secrets[v.Secret.SecretName]
		case v.ConfigMap != nil && o.configs[v.ConfigMap.Name] != nil:
			for name := range o.configs[v.ConfigMap.Name].Data {
				names = append(names, name)
			}
		}
		if names == nil {
			found = append(found, fmt.Errorf("volume %s is of nothing that is known", mount.Name))
		}
		for _, name := range names {
			files[mount.MountPath+"/"+name] = true
		}
	}
	for name, value := range o.environment() {
		_, ca, _ := strings.Cut(value, "ca_file=")
		for _, file := range []string{value, ca} {
			if strings.HasPrefix(file, "/") && !files[file] {
				found = append(found, fmt.Errorf("%s: nothing is mounted at %s", name, file))
			}
		}
	}
	return errors.Join(found...)
}

// environment returns the variables of the broker's settings.
func (o *objects) environment() map[string]string {
	all := map[string]string{}
	for _, from := range o.deployment.Spec.Template.Spec.Containers[0].EnvFrom {
		if from.ConfigMapRef != nil && o.configs[from.ConfigMapRef.Name] != nil {
			for name, value := range o.configs[from.ConfigMapRef.Name].Data {
				all[name] = value
			}
		}
	}
	return all
}

// ports sees that probes, Service, policy and settings mean the same ports, and that
// nobody is killed who is still draining.
func (o *objects) ports() error {
	var found []error
	set := o.environment()
	pod := o.deployment.Spec.Template.Spec
	c := pod.Containers[0]
	named := map[string]int32{}
	for _, p := range c.Ports {
		named[p.Name] = p.ContainerPort
	}
	for name, setting := range map[string]string{"grpc": "TOKENBROKER_GRPC_ADDR", "ops": "TOKENBROKER_OPS_ADDR"} {
		if set[setting] != fmt.Sprintf(":%d", named[name]) {
			found = append(found, fmt.Errorf("port %s is not that of %s", name, setting))
		}
	}
	for path, probe := range map[string]*core.Probe{"/startupz": c.StartupProbe, "/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "ops" {
			found = append(found, fmt.Errorf("a probe must ask the port ops for %s", path))
		}
	}
	for _, p := range o.service.Spec.Ports {
		if p.Port != named["grpc"] || p.TargetPort.IntVal != named["grpc"] {
			found = append(found, errors.New("the Service is of another port than gRPC"))
		}
	}
	for _, rule := range o.network.Spec.Ingress {
		if len(rule.From) == 0 || len(rule.Ports) != 1 || !slices.Contains([]int32{named["grpc"], named["ops"]}, rule.Ports[0].Port.IntVal) {
			found = append(found, errors.New("the NetworkPolicy lets everybody in, or in where nobody listens"))
		}
		for _, peer := range rule.From {
			if peer.PodSelector == nil || peer.NamespaceSelector == nil || len(peer.PodSelector.MatchLabels) != 1 || len(peer.NamespaceSelector.MatchLabels) != 1 {
				found = append(found, errors.New("the NetworkPolicy must know callers by one label of the pod and one of the namespace"))
			}
		}
	}
	drain, err := time.ParseDuration(set["TOKENBROKER_DRAIN_TIMEOUT"])
	if err != nil || pod.TerminationGracePeriodSeconds == nil || c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil {
		return errors.Join(append(found, errors.New("drain timeout, pause before the end (sleep) and grace period must be said"))...)
	}
	pause := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; pause <= 0 || grace < pause+drain+5*time.Second {
		found = append(found, fmt.Errorf("a grace period of %v is too short for a pause of %v and a drain of %v", grace, pause, drain))
	}
	return errors.Join(found...)
}

// settings sees that the binary knows every variable, and takes their values
// together: it fails with 2 if not, and here with 1, as there are no secrets.
func (o *objects) settings(ctx context.Context, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	help, err := exec.CommandContext(ctx, binary, "serve", "--help").Output()
	if err != nil {
		return err
	}
	var found []error
	serve := exec.CommandContext(ctx, binary, "serve")
	serve.Env = []string{}
	for name, value := range o.environment() {
		if !strings.Contains(string(help), "$"+name+")") {
			found = append(found, fmt.Errorf("there is no setting %s", name))
		}
		serve.Env = append(serve.Env, name+"="+value)
	}
	said, err := serve.CombinedOutput()
	if exit := (&exec.ExitError{}); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		found = append(found, fmt.Errorf("the broker does not take the settings: %v: %s", err, said))
	}
	return errors.Join(found...)
}

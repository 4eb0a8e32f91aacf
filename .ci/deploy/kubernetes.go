package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// exact is how an image with an exact version, or a digest, is written.
var exact = regexp.MustCompile(`:\d+\.\d+\.\d+$|@sha256:[0-9a-f]{64}$`)

// objects is what an overlay is built to.
type objects struct {
	deployment *apps.Deployment
	service    *core.Service
	account    *core.ServiceAccount
	budget     *policy.PodDisruptionBudget
	autoscaler *autoscaling.HorizontalPodAutoscaler
	network    *networking.NetworkPolicy
	configs    map[string]*core.ConfigMap
}

// checkKubernetes builds an overlay as kubectl does, reads what comes out of it into
// the types of Kubernetes' API, which refuse what there is no field for, and sees
// that its parts fit each other and the binary.
func checkKubernetes(ctx context.Context, dir, binary string) error {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return err
	}
	o := objects{configs: map[string]*core.ConfigMap{}}
	decoder, err := strict()
	if err != nil {
		return err
	}
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			return err
		}
		object, _, err := decoder.Decode(text, nil, nil)
		if err != nil {
			return fmt.Errorf("%s %s: %w", resource.GetKind(), resource.GetName(), err)
		}
		if bytes.Contains(text, []byte("kind: Secret\n")) {
			return fmt.Errorf("%s: a secret is in the repository", resource.GetName())
		}
		if resource.GetNamespace() == "" && resource.GetKind() != "Namespace" {
			return fmt.Errorf("%s %s is in no namespace", resource.GetKind(), resource.GetName())
		}
		if err := o.add(object); err != nil {
			return err
		}
	}
	if o.deployment == nil || o.service == nil || o.account == nil || o.budget == nil || o.autoscaler == nil || o.network == nil {
		return errors.New("one of Deployment, Service, ServiceAccount, PodDisruptionBudget, HorizontalPodAutoscaler and NetworkPolicy is missing")
	}
	if n := len(o.deployment.Spec.Template.Spec.Containers); n != 1 {
		return fmt.Errorf("the pod has %d containers", n)
	}
	return errors.Join(confinedPod(o.deployment.Spec.Template.Spec), o.fit(), o.mounted(), o.ports(), o.settings(ctx, binary))
}

// strict returns a decoder that refuses unknown fields and those that are there twice.
func strict() (runtime.Decoder, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, core.AddToScheme, networking.AddToScheme, policy.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer(), nil
}

func (o *objects) add(object runtime.Object) error {
	switch x := object.(type) {
	case *apps.Deployment:
		o.deployment = x
	case *core.Service:
		o.service = x
	case *core.ServiceAccount:
		o.account = x
	case *policy.PodDisruptionBudget:
		o.budget = x
	case *autoscaling.HorizontalPodAutoscaler:
		o.autoscaler = x
	case *networking.NetworkPolicy:
		o.network = x
	case *core.ConfigMap:
		o.configs[x.Name] = x
	case *core.Namespace:
		if x.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			return errors.New("the namespace takes pods that are not restricted")
		}
	default:
		return fmt.Errorf("nobody looks at a %T", x)
	}
	return nil
}

// confinedPod says what a pod may do that it need not.
func confinedPod(pod core.PodSpec) error {
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	c := pod.Containers[0]
	p, s := pod.SecurityContext, c.SecurityContext
	switch {
	case pod.HostNetwork || pod.HostPID || pod.HostIPC:
		return errors.New("the pod shares namespaces of its node")
	case p == nil || !is(p.RunAsNonRoot, true) || p.RunAsUser == nil || *p.RunAsUser != 65532:
		return errors.New("the pod does not run as the image's user")
	case p.FSGroup == nil || *p.FSGroup != 65532:
		return errors.New("the pod's group cannot read its secrets")
	case p.SeccompProfile == nil || p.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault:
		return errors.New("the pod may use every system call")
	case !is(pod.AutomountServiceAccountToken, false) || !is(pod.EnableServiceLinks, false):
		return errors.New("the pod gets a service account's token, or variables of Services")
	case s == nil || !is(s.AllowPrivilegeEscalation, false) || s.Privileged != nil:
		return errors.New("the container may gain privileges")
	case !is(s.ReadOnlyRootFilesystem, true):
		return errors.New("the container's file system can be written to")
	case s.Capabilities == nil || len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" || len(s.Capabilities.Add) > 0:
		return errors.New("the container has capabilities")
	case c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || !c.Resources.Requests.Memory().Equal(*c.Resources.Limits.Memory()):
		return errors.New("the container must request CPU, and as much memory as it may have")
	case !exact.MatchString(c.Image):
		return fmt.Errorf("the image %s has no exact version", c.Image)
	}
	return nil
}

// Prints the Deployment that Knative Serving makes for a Service, by Knative's own exported functions.
//
// Standard input: {"systemNamespace": TEXT, "configMaps": {NAME: {KEY: TEXT}}, "service": OBJECT}, one JSON document for each
// case. Standard output: the Deployments, one line each.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"knative.dev/pkg/apis"
	"knative.dev/pkg/configmap"
	v1 "knative.dev/serving/pkg/apis/serving/v1"
	configresources "knative.dev/serving/pkg/reconciler/configuration/resources"
	"knative.dev/serving/pkg/reconciler/revision/config"
	"knative.dev/serving/pkg/reconciler/revision/resources"
	serviceresources "knative.dev/serving/pkg/reconciler/service/resources"
)

type input struct {
	SystemNamespace string                       `json:"systemNamespace"`
	ConfigMaps      map[string]map[string]string `json:"configMaps"`
	Service         v1.Service                   `json:"service"`
}

var needed = []string{
	"config-defaults", "config-features", "config-autoscaler", "config-deployment", "config-logging", "config-network",
	"config-observability", "config-tracing",
}

func main() {
	decoder := json.NewDecoder(os.Stdin)
	for {
		var one input
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			fail(err)
		}
		print(one)
	}
}

func print(one input) {
	os.Setenv("SYSTEM_NAMESPACE", one.SystemNamespace)
	store := config.NewStore(zap.NewNop().Sugar())
	maps := make([]*corev1.ConfigMap, 0, len(needed))
	for _, name := range needed {
		meta := metav1.ObjectMeta{Name: name, Namespace: one.SystemNamespace}
		maps = append(maps, &corev1.ConfigMap{ObjectMeta: meta, Data: one.ConfigMaps[name]})
	}
	store.WatchConfigs(configmap.NewStaticWatcher(maps...))
	ctx := store.ToContext(context.Background())
	service := &one.Service
	service.SetDefaults(apis.WithinCreate(ctx))
	configuration := serviceresources.MakeConfiguration(service)
	configuration.Generation = 1
	configuration.SetDefaults(apis.WithinCreate(ctx))
	revision := configresources.MakeRevision(ctx, configuration, time.Unix(0, 0).UTC())
	revision.SetDefaults(apis.WithinCreate(ctx))
	deployment, err := resources.MakeDeployment(revision, config.FromContext(ctx))
	if err != nil {
		fail(err)
	}
	text, err := json.Marshal(deployment)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(text))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

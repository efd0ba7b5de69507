// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// environment is what CNI_ARGS says.
type environment struct {
	ips    []string
	mac    string
	labels map[string]string // K8S_POD_NAME and such
}

// parseEnv reads "IgnoreUnknown=1;IP=10.0.0.9;K8S_POD_NAME=web". A name that is not
// known is refused unless IgnoreUnknown is set, as the conventions of CNI want it.
func parseEnv(text string) (*environment, error) {
	e := &environment{labels: make(map[string]string)}
	lenient, unknown := false, ""
	for pair := range strings.SplitSeq(text, ";") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, refuse(types.ErrInvalidEnvironmentVariables, "CNI_ARGS", fmt.Sprintf("%q is not NAME=VALUE", pair))
		}
		switch {
		case strings.EqualFold(name, "IgnoreUnknown"):
			lenient = value == "1" || strings.EqualFold(value, "true")
		case name == "IP":
			e.ips = strings.Split(value, ",")
		case name == "MAC":
			e.mac = value
		case strings.HasPrefix(name, "K8S_POD_"):
			e.labels[name] = value
		default:
			unknown = name
		}
	}
	if unknown != "" && !lenient {
		return nil, refuse(types.ErrInvalidEnvironmentVariables, "CNI_ARGS", fmt.Sprintf("%s is not known, and IgnoreUnknown is not set", unknown))
	}
	return e, nil
}

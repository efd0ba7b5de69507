// SPDX-License-Identifier: Apache-2.0

// Sluice, in a directory of CNI plugins, is how a container runtime attaches
// containers to Sluice. It is a client of the daemon and keeps nothing itself: what it
// is told it says to sluiced, in one request, and what that answers it prints.
//
//	ADD     an interface with addresses and routes; when it is done, packets pass
//	DEL     takes it away; well done also if there is nothing, and if there is no
//	        daemon, which is told at its next start (del.go)
//	CHECK   names what is not as ADD made it
//	GC      takes away what the runtime does not name
//	STATUS  whether an ADD could work now
//	VERSION of the CNI specification: 0.3.1, 0.4.0, 1.0.0, 1.1.0
//
// The way of an ADD through the files: conf.go, env.go (what was asked), network.go (the
// network that the daemon is to have), ipam.go (addresses that another plugin leases),
// add.go, result.go; errors.go on the way back.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"sluice/api"
)

// release is set by the linker.
var release = "unknown"

func main() {
	if len(os.Args) > 1 && os.Getenv("CNI_COMMAND") == "" {
		os.Exit(byHand(os.Args[1:]))
	}
	p := plugin{began: api.Now()}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status,
	}, supported(), "Sluice CNI plugin "+release)
	if err == nil {
		return
	}
	if printed := err.Print(); printed != nil {
		os.Stderr.WriteString(errors.Join(err, printed).Error() + "\n")
	}
	os.Exit(1)
}

// byHand is the program when people call it.
func byHand(args []string) int {
	var err error
	switch args[0] {
	case "install", "uninstall":
		err = setup(args, os.Stderr)
	case "version", "--version":
		fmt.Println("Sluice CNI plugin " + release)
	case "help", "--help", "-h":
		fmt.Print(usage)
	default:
		err = fmt.Errorf("%q is not understood\n%s", args[0], usage)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// supported are the versions of the specification.
func supported() version.PluginInfo {
	return version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")
}

// plugin is one run of the program.
type plugin struct {
	began api.Moment
}

// refuse is an error of the specification's kinds, about a field.
func refuse(code uint, field, reason string) error {
	if field != "" {
		reason = field + ": " + reason
	}
	return types.NewError(code, "sluice: "+reason, "")
}

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"sluice/policy/networkpolicy"
)

// policyFiles are the files that a command on policies reads.
type policyFiles struct{ policies, pods []string }

func (f *policyFiles) addFlags(cmd *cobra.Command) {
	cmd.PersistentFlags().StringArrayVarP(&f.policies, "file", "f", nil, "file with policies, - for standard input; may be repeated")
	cmd.PersistentFlags().StringArrayVar(&f.pods, "pods", nil, "file with pods, namespaces and nodes; may be repeated")
}

// policyCommand works without a daemon: what a policy means depends on nothing that
// a daemon has.
func (c *cli) policyCommand() *cobra.Command {
	var files policyFiles
	cmd := &cobra.Command{
		Use:   "policy { check | compile }",
		Short: "ask what Kubernetes NetworkPolicies allow, without a cluster",
		Long: "Files have the objects as kubectl prints them: YAML or JSON.\n" +
			"No daemon is asked, and nothing is changed.",
		Example: "  sluice policy check -f policies.yaml --pods pods.yaml --from shop/web --to shop/db --port 5432",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("policy has no command %q: check or compile", args[0])
			}
			return cmd.Help()
		},
	}
	files.addFlags(cmd)
	cmd.AddCommand(c.policyCheckCommand(&files), c.policyCompileCommand(&files))
	return cmd
}

// probeWords are those of policy check.
type probeWords struct {
	from, to, proto string
	port            uint16
}

func (c *cli) policyCheckCommand(files *policyFiles) *cobra.Command {
	var w probeWords
	cmd := &cobra.Command{
		Use:   "check -f FILE --pods FILE --from WHO --to WHO --port PORT [ --proto PROTO ]",
		Short: "say whether a connection is allowed, and by which rules",
		Long:  "WHO is NAMESPACE/POD, a pod of the namespace default, or an address.\nExit code 1 says that it is denied.",
		Args:  noArgs,
		RunE: action(func(context.Context, []string) error {
			if w.from == "" || w.to == "" {
				return usagef("policy check: say --from and --to")
			}
			cl, err := c.readCluster(files)
			if err != nil {
				return err
			}
			return c.checkPolicy(cl, &w)
		}),
	}
	cmd.Flags().StringVar(&w.from, "from", "", "who opens the connection: NAMESPACE/POD or an address")
	cmd.Flags().StringVar(&w.to, "to", "", "to whom, after translation: NAMESPACE/POD or an address")
	cmd.Flags().Uint16Var(&w.port, "port", 0, "port of the destination")
	cmd.Flags().StringVar(&w.proto, "proto", "tcp", "tcp, udp, sctp, or another, which has no ports")
	return cmd
}

func (c *cli) policyCompileCommand(files *policyFiles) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "compile -f FILE --pods FILE [ --node NODE ]",
		Short: "print the ruleset that policies mean, as nft(8) lists it",
		Args:  noArgs,
		RunE: action(func(context.Context, []string) error {
			cl, err := c.readCluster(files)
			if err != nil {
				return err
			}
			compiled, err := networkpolicy.Compile(cl, networkpolicy.Options{Node: node})
			if err != nil {
				return err
			}
			if c.format == "json" {
				return compiled.ListJSON(c.out)
			}
			return compiled.List(c.out)
		}),
	}
	cmd.Flags().StringVar(&node, "node", "", "for the pods of this node only")
	return cmd
}

// readCluster reads all files, and checks what is in them.
func (c *cli) readCluster(files *policyFiles) (*networkpolicy.Cluster, error) {
	if len(files.policies) == 0 || len(files.pods) == 0 {
		return nil, usagef("policy: give files with policies, by -f, and with pods, by --pods")
	}
	cl := &networkpolicy.Cluster{}
	for _, name := range append(files.policies, files.pods...) {
		text, err := c.readFile(name)
		if err != nil {
			return nil, err
		}
		if err := networkpolicy.Read(cl, text); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return cl, cl.Validate()
}

// policyAnswer is what policy check prints for one pair of addresses.
type policyAnswer struct {
	From     netip.Addr             `json:"from"`
	To       netip.Addr             `json:"to"`
	Protocol networkpolicy.Protocol `json:"protocol"`
	Port     uint16                 `json:"port,omitempty"`
	networkpolicy.Verdict
}

// errDenied is why policy check ends with 1: all has been said.
var errDenied = errors.New("denied")

// checkPolicy asks for all pairs of addresses, since a pod may have one of each
// family.
func (c *cli) checkPolicy(cl *networkpolicy.Cluster, w *probeWords) error {
	probes, err := cl.Probes(w.from, w.to, networkpolicy.Protocol(strings.ToUpper(w.proto)), w.port)
	if err != nil {
		return err
	}
	answers := []policyAnswer{}
	allowed := true
	for _, p := range probes {
		v := cl.Check(p)
		allowed = allowed && v.Allowed
		answers = append(answers, policyAnswer{p.From, p.To, p.Protocol, p.Port, v})
	}
	err = c.print(answers, func(out io.Writer) {
		for i := range answers {
			printAnswer(out, w, &answers[i])
		}
	})
	if err == nil && !allowed {
		return &toldError{errDenied}
	}
	return err
}

func printAnswer(out io.Writer, w *probeWords, a *policyAnswer) {
	port := ""
	if a.Port != 0 {
		port = fmt.Sprintf(" port %d", a.Port)
	}
	fmt.Fprintf(out, "%s -> %s %s%s: %s", withAddr(w.from, a.From), withAddr(w.to, a.To), strings.ToLower(string(a.Protocol)), port, a.Verdict.String())
}

// withAddr says who has an address, if it was asked for by name.
func withAddr(name string, a netip.Addr) string {
	if name == a.String() {
		return name
	}
	return name + " (" + a.String() + ")"
}

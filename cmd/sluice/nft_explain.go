// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sluice/api"
)

// explainWords reads what follows nft explain.
func explainWords(words []string, namespace, port string) (*api.NFTExplainRequest, error) {
	r := &api.NFTExplainRequest{Namespace: namespace, Of: port}
	text := map[string]*string{"--from": &r.From, "--to": &r.To, "--iif": &r.Device, "--proto": &r.Proto}
	numbers := map[string]*uint16{"--port": &r.Port, "--sport": &r.SourcePort}
	for len(words) > 0 {
		name, value, given := strings.Cut(words[0], "=")
		words = words[1:]
		if name == "--established" && !given {
			r.Established = true
			continue
		}
		if text[name] == nil && numbers[name] == nil {
			return nil, usagef("nft explain: unexpected %q; want --from, --to, --iif, --proto, --port, --sport or --established", name)
		}
		if !given {
			if len(words) == 0 {
				return nil, usagef("nft explain: %s needs an argument", name)
			}
			value, words = words[0], words[1:]
		}
		if p := text[name]; p != nil {
			*p = value
			continue
		}
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return nil, usagef("nft explain: %s %q: want the number of a port", name, value)
		}
		*numbers[name] = uint16(n)
	}
	if r.To == "" {
		return nil, usagef("nft explain: say --to, and --from unless the namespace itself sends it")
	}
	return r, nil
}

// errRefused is why nft explain ends with 1: all has been said.
var errRefused = errors.New("not accepted")

func (c *cli) nftExplain(ctx context.Context, l *nftLine, words []string) error {
	r, err := explainWords(words, l.Namespace, l.Port)
	if err != nil {
		return err
	}
	reply, err := c.client().NFTExplain(ctx, r)
	if err != nil {
		return err
	}
	if l.Show.JSON {
		c.format = "json"
	}
	accepted := true
	err = c.print(reply.Explanations, func(w io.Writer) {
		for i := range reply.Explanations {
			printExplanation(w, r, &reply.Explanations[i])
		}
	})
	for i := range reply.Explanations {
		accepted = accepted && reply.Explanations[i].Verdict == "accept"
	}
	if err == nil && !accepted {
		return &toldError{errRefused}
	}
	return err
}

func printExplanation(w io.Writer, r *api.NFTExplainRequest, x *api.NFTExplanation) {
	proto, port := r.Proto, ""
	if proto == "" {
		proto = "tcp"
	}
	if r.Port != 0 {
		port = fmt.Sprintf(" port %d", r.Port)
	}
	fmt.Fprintf(w, "%v -> %v %s%s", x.From, x.To, proto, port)
	if x.Device != "" {
		fmt.Fprintf(w, ", in by %s", x.Device)
	}
	if x.Out != "" {
		fmt.Fprintf(w, ", out by %s", x.Out)
	}
	fmt.Fprintln(w)
	if x.Unseen {
		fmt.Fprintln(w, "  both are in one network: what stays there passes no hook of IP")
	}
	if x.Frames {
		fmt.Fprintln(w, "  rules of families bridge, arp and netdev are not asked; those of a port are by nft --port NAME explain")
	}
	for i := range x.Steps {
		fmt.Fprintf(w, "  %s: %s\n", x.Steps[i].Hook, stepText(&x.Steps[i]))
	}
	if x.Destination != "" {
		fmt.Fprintf(w, "  its destination becomes %s\n", x.Destination)
	}
	if x.Source != "" {
		fmt.Fprintf(w, "  its source becomes %s\n", x.Source)
	}
	switch {
	case x.By != nil:
		fmt.Fprintf(w, "  => %s by %s\n", x.Verdict, stepText(x.By))
	case x.Reason != "":
		fmt.Fprintf(w, "  => %s: %s\n", x.Verdict, x.Reason)
	default:
		fmt.Fprintf(w, "  => %s\n", x.Verdict)
	}
}

// stepText is a rule with its place, or the policy of a chain.
func stepText(s *api.NFTStep) string {
	if s.Rule == "" {
		return fmt.Sprintf("%s %s policy %s", s.Table, s.Chain, s.Verdict)
	}
	at := fmt.Sprintf("handle %d", s.Handle)
	if s.Pos != "" {
		at = s.Pos + ", " + at
	}
	return fmt.Sprintf("%s %s: %s (verdict %s; %s)", s.Table, s.Chain, s.Rule, s.Verdict, at)
}

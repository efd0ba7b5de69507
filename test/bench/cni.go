// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sluice/test/lab"
	"sluice/veth"
)

// references is where distributions have the reference plugins.
const references = "/usr/lib/cni"

// runner runs one CNI plugin in the namespace that is the host.
type runner struct {
	name, program, conf string
	home                *lab.NS
	took                map[string][]time.Duration
}

// cni measures how long ADD and DEL take, of Sluice's plugin and of the reference plugin
// bridge with host-local, alone and in parallel, in turns.
func cni(c *console, args []string) error {
	f := words("cni")
	rounds := f.Int("rounds", 3, "rounds; each runs everything once with each plugin")
	alone := f.Int("alone", 50, "containers one after the other in a round")
	parallel := f.Int("parallel", 100, "containers at once in a round")
	if err := f.Parse(args); err != nil {
		return err
	}
	l := lab.New(c)
	home := l.NS("home")
	d := l.DaemonIn(home, "networks: []\n")
	all := make([]*lab.NS, max(*alone, *parallel))
	for i := range all {
		all[i] = l.NS(fmt.Sprintf("c%d", i))
	}
	plugins := []*runner{
		{name: "Sluice", program: l.Binary("cni/sluice"), conf: fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","type":"sluice","socket":%q,"stateDir":%q,
			"isDefaultGateway":true,"ipam":{"ranges":[[{"subnet":"10.85.0.0/16"}]]}}`, d.Socket(), filepath.Join(l.Dir(), "state"))},
		{name: "bridge, host-local", program: filepath.Join(references, "bridge"), conf: fmt.Sprintf(`{"cniVersion":"1.0.0","name":"ref","type":"bridge","bridge":"cni0",
			"isDefaultGateway":true,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.86.0.0/16"}]]}}`, filepath.Join(l.Dir(), "leases"))},
	}
	for _, p := range plugins {
		p.home, p.took = home, make(map[string][]time.Duration)
		p.all(c, all[:1], "warm", false)
	}
	for range *rounds {
		for _, p := range plugins {
			p.all(c, all[:*alone], "alone", false)
			p.all(c, all[:*parallel], fmt.Sprintf("%d at once", *parallel), true)
		}
	}
	d.CLI("network", "del", "pods")
	fmt.Print(cniTable(plugins, []string{"ADD, alone", "DEL, alone", fmt.Sprintf("ADD, %d at once", *parallel), fmt.Sprintf("DEL, %d at once", *parallel)}))
	return nil
}

// all adds containers and removes them, one after the other or all at once.
func (p *runner) all(c *console, containers []*lab.NS, how string, atOnce bool) {
	var mu sync.Mutex
	for _, verb := range []string{"ADD", "DEL"} {
		var wg sync.WaitGroup
		one := func(n *lab.NS) {
			took, err := p.run(verb, n)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				c.Errorf("%s: %s: %v", p.name, verb, err)
				return
			}
			p.took[verb+", "+how] = append(p.took[verb+", "+how], took)
		}
		for _, n := range containers {
			if atOnce {
				wg.Go(func() { one(n) })
			} else {
				one(n)
			}
		}
		wg.Wait()
	}
}

// run runs the plugin as a runtime does: what it takes is from its start to its end.
func (p *runner) run(verb string, n *lab.NS) (took time.Duration, err error) {
	cmd := exec.Command(p.program)
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + n.Name(), "CNI_NETNS=" + n.Path(), "CNI_IFNAME=eth0",
		"CNI_PATH=" + references, "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
	}
	cmd.Stdin = bytes.NewReader([]byte(p.conf))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	home, err := veth.OpenNetNS(p.home.Path())
	if err != nil {
		return 0, err
	}
	defer home.Close()
	start := time.Now()
	if err := veth.Do(home, cmd.Start); err != nil {
		return 0, err
	}
	if err = cmd.Wait(); err != nil {
		err = fmt.Errorf("%w: %s", err, out.String())
	}
	return time.Since(start), err
}

// cniTable is what was measured, in milliseconds.
func cniTable(plugins []*runner, rows []string) string {
	var out bytes.Buffer
	out.WriteString("| milliseconds, p50 / p99 |")
	for _, p := range plugins {
		fmt.Fprintf(&out, " %s |", p.name)
	}
	out.WriteString("\n|---|" + string(bytes.Repeat([]byte("---:|"), len(plugins))) + "\n")
	for _, row := range rows {
		fmt.Fprintf(&out, "| %s |", row)
		for _, p := range plugins {
			fmt.Fprintf(&out, " %s / %s |", percentile(p.took[row], 50), percentile(p.took[row], 99))
		}
		out.WriteString("\n")
	}
	return out.String()
}

// percentile is that of durations, in milliseconds.
func percentile(all []time.Duration, p int) string {
	if len(all) == 0 {
		return "–"
	}
	all = slices.Sorted(slices.Values(all))
	at := all[min(len(all)-1, len(all)*p/100)]
	return fmt.Sprintf("%.1f", float64(at)/float64(time.Millisecond))
}

// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"time"

	"sluice/natspec"
)

func (v *validator) nat64(field string, r *rawNAT64, s *scope) *natspec.NAT64 {
	if r == nil {
		return nil
	}
	n, at, err := natspec.ParseNAT64(r.Prefix, r.Masquerade, r.Pool)
	if err != nil {
		v.fault(field+"."+at, "%s", err)
	}
	if r.Masquerade != "" && !s.routes(r.Masquerade) {
		v.fault(field+".masquerade", "no network, uplink or link %q in the namespace", r.Masquerade)
	}
	return &n
}

// balanced reads what connections are spread over.
func (v *validator) balanced(field string, raw []rawService) (out []natspec.Service) {
	if n := len(raw); n > MaxServices {
		v.fault(field, "%d services; at most %d are supported", n, MaxServices)
		return nil
	}
	names := make(map[string]int)
	places := make(map[natspec.Listener]string)
	for i := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		s := v.balance(at, &raw[i])
		if first, twice := names[s.Name]; twice {
			v.fault(at+".name", "%q is already the name of services[%d]", s.Name, first)
		}
		names[s.Name] = i
		for j, l := range s.Listen {
			if other, twice := places[l]; twice {
				v.fault(fmt.Sprintf("%s.listen[%d]", at, j), "%s is where service %s is already", l, other)
			}
			places[l] = s.Name
		}
		out = append(out, s)
	}
	return out
}

func (v *validator) balance(field string, r *rawService) (s natspec.Service) {
	if _, err := natspec.ParseService(r.Name); err != nil || r.Name == "" {
		v.fault(field+".name", "%q: want letters, digits and - . _, at most 63", r.Name)
	}
	s.Name = r.Name
	if n := len(r.Listen); n == 0 || n > natspec.MaxListeners {
		v.fault(field+".listen", "%d places; want 1 to %d, as tcp 10.96.0.10:80", n, natspec.MaxListeners)
	}
	for i, text := range r.Listen {
		l, err := natspec.ParseListener(text)
		if err != nil {
			v.fault(fmt.Sprintf("%s.listen[%d]", field, i), "%q: %s", text, err)
		}
		s.Listen = append(s.Listen, l)
	}
	if n := len(r.Backends); n > natspec.MaxReal {
		v.fault(field+".backends", "%d backends; at most %d are supported", n, natspec.MaxReal)
		return s
	}
	for i, text := range r.Backends {
		at := fmt.Sprintf("%s.backends[%d]", field, i)
		b, err := natspec.ParseReal(text)
		if err != nil {
			v.fault(at, "%q: %s", text, err)
		}
		for j := range s.Real {
			if s.Real[j].Same(&b) {
				v.fault(at, "%s is backends[%d] already", b.Place(), j)
			}
		}
		b.Complete()
		s.Real = append(s.Real, b)
	}
	s.Persistent = v.affinity(field+".affinity", r.Affinity)
	return s
}

func (v *validator) affinity(field string, raw *string) *uint32 {
	seconds := uint32(0)
	if raw != nil {
		d, err := time.ParseDuration(*raw)
		if err != nil || d <= 0 || d%time.Second != 0 || d > natspec.MaxAffinity*time.Second {
			v.fault(field, "%q: want whole seconds, as 300s, at most %ds", *raw, natspec.MaxAffinity)
		}
		seconds = uint32(d / time.Second)
	}
	return &seconds
}

// maps reads nft's maps.
func (v *validator) maps(field string, raw []rawMap) (out []natspec.Map) {
	if n := len(raw); n > MaxMaps {
		v.fault(field, "%d maps; at most %d are supported", n, MaxMaps)
		return nil
	}
	names := make(map[string]int)
	for i := range raw {
		at := fmt.Sprintf("%s[%d]", field, i)
		if n := len(raw[i].Elements); n > natspec.MaxMapElements {
			v.fault(at+".elements", "%d elements; at most %d are supported", n, natspec.MaxMapElements)
			return nil
		}
		m, bad, err := natspec.ParseMap(raw[i].Name, raw[i].Type, raw[i].Elements)
		switch {
		case err == nil:
		case bad >= 0:
			v.fault(fmt.Sprintf("%s.elements[%d]", at, bad), "%q: %s", raw[i].Elements[bad], err)
		default:
			v.fault(at, "%s", err)
		}
		if first, twice := names[m.Name]; twice {
			v.fault(at+".name", "%q is already the name of maps[%d]", m.Name, first)
		}
		names[m.Name] = i
		out = append(out, m)
	}
	return out
}

// fits holds statements against the maps that they name.
func (v *validator) fits(field string, all []natspec.Statement, maps []natspec.Map) {
	byName := make(map[string]*natspec.Map)
	for i := range maps {
		byName[maps[i].Name] = &maps[i]
	}
	for i := range all {
		name := all[i].MapName()
		if name == "" {
			continue
		}
		m := byName[name]
		if m == nil {
			v.fault(fmt.Sprintf("%s[%d]", field, i), "no map %q in the namespace's maps", name)
			return
		}
		if err := all[i].Fits(m); err != nil {
			v.fault(fmt.Sprintf("%s[%d]", field, i), "%s", err)
		}
	}
}

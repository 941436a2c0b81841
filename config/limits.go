package config

import ()

// DHCPLimits bound the packets of one sender.
type DHCPLimits struct {
	Client DHCPLimit // a MAC
	Port   DHCPLimit // an option 82 value, or an interface
	Relay  DHCPLimit
}

// DHCPLimit is packets a second, and at once after a pause.
type DHCPLimit struct {
	Rate  float64 // 0: no limit
	Burst int
}

// limits are generous: after a power cut whole streets ask at once, and what is
// let through by them is a small part of what the server answers.
func (v value) limits() DHCPLimits {
	m := v.mapping("client", "port", "relay")
	limit := func(v value, rate float64, burst int) DHCPLimit {
		m := v.mapping("rate", "burst")
		r := m.get("rate")
		got := DHCPLimit{Rate: r.number(rate, 0, 1_000_000), Burst: m.get("burst").integer(burst, 1, 1_000_000)}
		if got.Rate > 0 && got.Rate < 0.1 {
			r.problem("%g: want 0 (no limit) or at least 0.1 packets a second", got.Rate)
		}
		return got
	}
	return DHCPLimits{
		Client: limit(m.get("client"), 5, 20),
		Port:   limit(m.get("port"), 200, 2000),
		Relay:  limit(m.get("relay"), 5000, 20_000),
	}
}

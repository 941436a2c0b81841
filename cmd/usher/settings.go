package main

import (
	"fmt"
	"log/slog"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/lease"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/userside"
)

// The configuration's words become each package's own options here and nowhere
// else, so that no package knows another's.

func clientOptions(c config.ERP, log *slog.Logger, obs userside.Observer) (userside.Options, error) {
	o := userside.Options{
		URL: c.URL, Key: userside.Key(c.Key.Reveal()),
		Timeout: c.Timeout, Retries: c.Retries, MaxConcurrent: c.MaxConcurrent,
		RequestsPerMinute: c.RequestsPerMinute,
		CAFile:            c.CAFile, InsecureSkipVerify: c.Insecure,
		UserAgent: "usher/" + version, Logger: log, Observer: obs,
	}
	if c.ERPVersion == "" {
		return o, nil
	}
	var err error
	if o.ERPVersion, err = userside.ParseVersion(c.ERPVersion); err != nil {
		err = fmt.Errorf("userside.erp_version: %w", err)
	}
	return o, err
}

func fetchOptions(c config.ERP, policy provision.Policy, memory *erp.Memory, log *slog.Logger) erp.Options {
	return erp.Options{Bindings: erp.Mode(c.Bindings), BatchSize: c.BatchSize, Policy: &policy, Memory: memory, Log: log}
}

func syncOptions(c *config.Config) provision.SyncOptions {
	return provision.SyncOptions{
		PollInterval:    c.ERP.PollInterval,
		PollJitter:      c.ERP.PollJitter,
		RefreshInterval: c.ERP.RefreshInterval,
		Guard: provision.GuardLimits{
			MaxRemoved: c.Guard.MaxRemoved, MaxMoved: c.Guard.MaxMoved, MaxBlocked: c.Guard.MaxBlocked,
			MinChanged: c.Guard.MinChanged, AcceptAfter: c.Guard.AcceptAfter,
		},
		Subnets:  c.Prefixes(),
		Reserved: c.Reserved(),
	}
}

func enforceOptions(c config.ACL) provision.EnforceOptions {
	return provision.EnforceOptions{VerifyInterval: c.VerifyInterval, DryRun: c.DryRun || !c.Enabled}
}

func outboxOptions(c config.Reports, snapshot func() *provision.Snapshot, leases *lease.Table) outbox.Options {
	return outbox.Options{Enabled: c.Enabled, Rate: c.Rate, Burst: c.Burst, Settled: settled(snapshot, leases)}
}

func dhcpOptions(c config.DHCP) (dhcpd.Options, error) {
	o := dhcpd.Options{
		Listen: c.Listen, RelayPort: c.RelayPort, ClientPort: c.ClientPort,
		Interfaces: c.Interfaces, Relays: c.Relays, ServerID: c.ServerID, Authoritative: c.Authoritative,
		AnswerWhileHolding: c.AnswerWhileHolding,
		Limits:             dhcpd.Limits{Client: dhcpd.Limit(c.Limits.Client), Port: dhcpd.Limit(c.Limits.Port), Relay: dhcpd.Limit(c.Limits.Relay)},
	}
	for _, m := range c.Match {
		switch m {
		case "option82":
			o.Match = append(o.Match, dhcpd.MatchOption82)
		case "mac":
			o.Match = append(o.Match, dhcpd.MatchMAC)
		default:
			return o, fmt.Errorf("dhcp.match: %q: want option82 or mac", m)
		}
	}
	o.Option82 = option82Options(c.Option82)
	for _, s := range c.Subnets {
		sub := dhcpd.Subnet{
			Prefix: s.Prefix, Gateway: s.Gateway, ServerID: s.ServerID, DNS: s.DNS, NTP: s.NTP, Domain: s.Domain,
			LeaseTime: s.LeaseTime, RenewTime: s.RenewTime, RebindTime: s.RebindTime,
		}
		for _, x := range s.Options {
			sub.Options = append(sub.Options, dhcpd.Option{Code: x.Code, Value: x.Value})
		}
		o.Subnets = append(o.Subnets, sub)
	}
	return o, nil
}

func option82Options(c config.Option82) dhcpd.Option82 {
	o := dhcpd.Option82{Default: c.DefaultProfiles()}
	for _, p := range c.Profiles {
		m := dhcpd.Option82Match{DeviceName: p.Match.DeviceName, RemoteID: p.Match.RemoteID, GIAddr: p.Match.GIAddr}
		for _, id := range p.Match.Device {
			m.Devices = append(m.Devices, provision.DeviceID(id))
		}
		o.Profiles = append(o.Profiles, dhcpd.Option82Profile{Profile: p.Profile(), Match: m})
	}
	for _, x := range c.Exact {
		o.Exact = append(o.Exact, dhcpd.Option82Exact{Value: x.Value, Device: provision.DeviceID(x.Device), Port: x.Port, PortName: x.PortName})
	}
	return o
}

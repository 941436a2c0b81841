package agent

import (
	"errors"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/audit"
)

// closeAudit writes the records that still wait. One that is lost fails no stop.
func (a *Agent) closeAudit() error {
	if err := a.audit.Close(); err != nil {
		a.log.Error("last audit records could not be written", "error", err)
	}
	return nil
}

// auditReport records that the ERP was told a MAC. The evidence is its packet, with the place that the
// lease of that client still has, or how ARP showed it.
func (a *Agent) auditReport(r provision.MACReport, attempts int, err error) {
	rec := audit.Record{
		Act: audit.SetMAC, Who: audit.Who{By: audit.ByAgent}, Result: audit.Done,
		What: audit.What{Customer: r.Subscriber, IP: r.IP, MAC: r.MAC, Attempts: attempts},
	}
	if r.ARP != (provision.ARPSighting{}) {
		rec.Who.Evidence = &audit.Evidence{Interface: r.ARP.Interface, ARP: &audit.ARP{Seen: r.At.UTC(), Silent: r.ARP.Silent, Asked: r.ARP.Asked}}
	} else {
		rec.Who.Evidence = a.evidenceOf(&r)
	}
	if err != nil {
		rec.Result, rec.Error = audit.Failed, err.Error()
	}
	switch {
	case errors.Is(err, provision.ErrRefused):
		rec.Result = audit.Refused
	case errors.Is(err, provision.ErrUncertain):
		rec.Result = audit.Uncertain
	}
	a.audit.Add(rec)
}

// evidenceOf returns what DHCP showed; nil: the report is of an older usher, and the client has no lease. A renewal past the
// relay tells no line, and who waits for the ERP has no lease yet: each tells what the other does not.
func (a *Agent) evidenceOf(r *provision.MACReport) *audit.Evidence {
	var e audit.Evidence
	p := &r.Packet
	l, leased := a.leases.Get(r.IP)
	leased = leased && l.MAC == r.MAC
	switch {
	case leased:
		e = audit.Evidence{Device: l.Device, Port: l.Port, Interface: l.Interface, Relay: l.GIAddr, Option82: l.Option82.String(), Renewed: l.Renewed.UTC()}
	case *p == (provision.Packet{}):
		return nil
	default:
		e = audit.Evidence{Device: p.Device, Port: p.Port, Interface: p.Interface, Relay: p.Relay, Option82: p.Option82}
	}
	if *p != (provision.Packet{}) {
		e.Seen, e.Source, e.VouchedBy, e.MatchedBy, e.Rule = r.At.UTC(), p.Source, p.VouchedBy, p.MatchedBy, p.Rule
	}
	return &e
}

// auditReload records that the configuration was read again.
func (a *Agent) auditReload(err error) {
	rec := audit.Record{
		Time: time.Now(), Act: audit.ConfigReload, Who: audit.Who{By: audit.BySignal}, Result: audit.Done, DryRun: a.dryRun,
		What: audit.What{Path: a.path, Hash: a.status.Load().Hash},
	}
	if err != nil {
		rec.Result, rec.Error = audit.Refused, err.Error()
	}
	a.audit.Add(rec)
}

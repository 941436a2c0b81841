package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// maxFiltered is up to how many addresses the kernel is asked for each alone.
// Each costs two walks over the connection table, which copy nothing that is not
// wanted; one reading of everything costs about as much as five (BenchmarkKernelForget).
const maxFiltered = 2

// Of linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_netlink.c.
const (
	ctaFilter           = 25 // CTA_FILTER, since Linux 5.8
	ctaFilterOrigFlags  = 1  // CTA_FILTER_ORIG_FLAGS
	ctaFilterReplyFlags = 2  // CTA_FILTER_REPLY_FLAGS
	filterIPSrc         = 1  // CTA_FILTER_F_CTA_IP_SRC
)

// filters returns the attributes of the two requests that together find every
// entry which match finds for addr.
func filters(addr [4]byte) [2][]byte {
	source := appendNested(nil, nl.CTA_TUPLE_IP, appendAttr(nil, nl.CTA_IP_V4_SRC, addr[:]))
	opened := appendNested(nil, nl.CTA_TUPLE_ORIG, source)
	answers := appendNested(nil, nl.CTA_TUPLE_REPLY, source)
	return [2][]byte{
		appendNested(opened, ctaFilter, appendAttr32(nil, ctaFilterOrigFlags, filterIPSrc)),
		appendNested(answers, ctaFilter, appendAttr32(nil, ctaFilterReplyFlags, filterIPSrc)),
	}
}

func appendNested(b []byte, typ uint16, value []byte) []byte {
	return appendAttr(b, typ|unix.NLA_F_NESTED, value)
}

// appendAttr appends an attribute whose value needs no padding.
func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return append(b, value...)
}

// findLocked returns the wanted entries: of few addresses by asking the kernel for
// just these, of many by one reading of everything. What comes is judged here in
// either case, so a kernel that does not know the filter costs time and nothing
// else; it is not asked that way again. The error of an interrupted reading
// comes with what was found.
func (f *Flows) findLocked(ctx context.Context, m match) ([]entry, error) {
	few, ok := m.single(maxFiltered)
	if !ok || f.unfiltered {
		entries, _, err := f.readLocked(ctx, m, nil)
		return entries, err
	}
	var all []entry
	for _, addr := range few {
		for _, attrs := range filters(addr) {
			entries, others, err := f.readLocked(ctx, m, attrs)
			if others || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
				f.unfiltered = true
				return f.findLocked(ctx, m)
			}
			if err != nil {
				return append(all, entries...), err
			}
			all = append(all, entries...)
		}
	}
	// A connection of a host with itself has the address in both places.
	slices.SortFunc(all, func(a, b entry) int { return slices.Compare(a, b) })
	return slices.CompactFunc(all, func(a, b entry) bool { return slices.Equal(a, b) }), nil
}

// readLocked reads the connection table, all of it or what attrs filter; others
// tells that not everything that came was wanted. With a filter it stops taking then.
func (f *Flows) readLocked(ctx context.Context, m match, attrs []byte) (entries []entry, others bool, err error) {
	read := 0
	err = f.request(nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP, attrs).ExecuteIter(unix.NETLINK_NETFILTER, 0, func(msg []byte) bool {
		if read++; read%1024 == 0 && ctx.Err() != nil {
			return false
		}
		e, ok := m.find(msg)
		if ok {
			entries = append(entries, e)
			f.gatherLocked(msg)
		} else {
			others = true
		}
		return attrs == nil || !others
	})
	if err == nil || errors.Is(err, netlink.ErrDumpInterrupted) {
		return entries, others, err // an interrupted reading lacks entries; those that it gave are true
	}
	if attrs == nil && absent(err) {
		err = fmt.Errorf("%w: %w", errNoTracking, err)
	}
	return nil, others, fmt.Errorf("read connections: %w", err)
}

// gatherLocked keeps a live connection whose ends are to be told.
func (f *Flows) gatherLocked(msg []byte) {
	if len(f.telling.of) == 0 || len(f.live) >= maxTold {
		return
	}
	if _, told := f.telling.find(msg); !told {
		return
	}
	c, ok := parseConnection(msg)
	if !ok || f.reached != nil && (f.reached(c.orig.dst.Addr()) || f.reached(c.reply.src.Addr())) {
		return
	}
	f.live = append(f.live, c)
}

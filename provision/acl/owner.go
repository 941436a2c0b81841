package acl

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unicode"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

const (
	// lockName is a table with nft's flag "owner" that no packet meets. Whoever has
	// it owns our table: only who has CAP_NET_ADMIN may make one, there is one in a
	// network namespace, whatever files its processes see, and the kernel takes it
	// away when the process ends, however that happens. Our table itself cannot have
	// the flag: it would go with the process, and every block with it.
	lockName = "usher_lock"
	// holderName is a set in it that holds nothing; its comment names the process.
	holderName = "holder"

	// ownerSocket is how versions before kept each other out, and what keeps
	// them out now: a name in the abstract namespace of unix sockets. Any user may
	// take it, so it counts only where somebody listens at it as root or as our own
	// user, which every version does, and where the kernel (before Linux 5.12) has no
	// owners of tables.
	ownerSocket = "@usher-acl"
)

// ErrOwned says that another process keeps this table.
var ErrOwned = errors.New("another process keeps the table " + tableTitle)

// closers are what makes an ownership.
type closers []io.Closer

// Close gives the ownership up.
func (c closers) Close() error {
	var errs []error
	for _, x := range c {
		errs = append(errs, x.Close())
	}
	return errors.Join(errs...)
}

// own takes the ownership of the table in a network namespace; zero is that of
// the calling thread.
func own(netNS int, log *slog.Logger) (io.Closer, error) {
	var have closers
	lock, err := lockTable(netNS)
	switch {
	case err == nil:
		have = append(have, lock)
	case !errors.Is(err, errNoOwners):
		return nil, err
	}
	name, err := takeName(netNS)
	if err == nil {
		return append(have, name), nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.Join(fmt.Errorf("take the ownership: %w", err), have.Close())
	}
	cred, err := nameHolder(netNS)
	if lock != nil && (err != nil || !mayBeAgent(cred)) {
		log.Warn("the socket name of earlier versions of usher is held by somebody who is none of them, which changes nothing for this one",
			"name", ownerSocket, "holder", describeHolder(cred, err))
		return have, nil
	}
	who := "it cannot be named, as it is in another pid namespace or has just ended"
	if err == nil && cred.Pid != 0 {
		who = describeProcess(int(cred.Pid), int(cred.Uid)) + "; end it first"
	}
	return nil, errors.Join(fmt.Errorf("%w: %s", ErrOwned, who), have.Close())
}

// errNoOwners says that this kernel knows no owners of tables.
var errNoOwners = errors.New("this kernel knows no owners of tables")

// tableLock is the table that is held.
type tableLock struct{ conn *nftables.Conn }

// Close has the kernel take the table away.
func (l tableLock) Close() error { return l.conn.CloseLasting() }

// lockTable makes the table that only one process may have.
func lockTable(netNS int) (io.Closer, error) {
	conn, err := low.dial(nftables.WithNetNSFd(netNS), nftables.WithSockOptions(lowNumber, explain))
	if err != nil {
		return nil, fmt.Errorf("take the ownership: open netlink socket: %w", err)
	}
	err = makeLock(conn, false)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		// A table of that name without an owner is there, restored from a listing perhaps. Or the kernel is too old.
		err = makeLock(conn, true)
	}
	if err == nil {
		return tableLock{conn}, nil
	}
	// Somebody else's table and a lack of rights are the same error.
	if errors.Is(err, unix.EPERM) {
		if held, named := lockHolder(conn); held {
			err = fmt.Errorf("%w: %s; end it first", ErrOwned, cmp.Or(named, "it does not give its name"))
		}
	} else if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = errNoOwners
	}
	if !errors.Is(err, ErrOwned) {
		err = fmt.Errorf("take the ownership: %w", err)
	}
	return nil, errors.Join(err, conn.CloseLasting())
}

// makeLock makes the table with its owner and the owner's name in one transaction.
func makeLock(conn *nftables.Conn, replace bool) error {
	table := &nftables.Table{Name: lockName, Family: nftables.TableFamilyIPv4}
	if replace {
		conn.DelTable(table)
	}
	table.Flags = nftables.TableFlagOwner
	conn.AddTable(table)
	s := &nftables.Set{Table: table, Name: holderName, KeyType: nftables.TypeNFProto, KeyByteOrder: binaryutil.BigEndian,
		Comment: strings.ReplaceAll(describeProcess(os.Getpid(), os.Geteuid()), `"`, "")} // nft prints it in quotes, and reads no others within
	if err := conn.AddSet(s, nil); err != nil {
		return err
	}
	return conn.Flush()
}

// lockHolder tells whether somebody has the table, and whom it names.
func lockHolder(conn *nftables.Conn) (held bool, name string) {
	table, err := conn.ListTableOfFamily(lockName, nftables.TableFamilyIPv4)
	if err != nil {
		return false, ""
	}
	if s, err := conn.GetSetByName(table, holderName); err == nil {
		name = s.Comment
	}
	return true, name
}

// describeProcess names a process for people, and for a comment that nft can read back:
// without quotes, and without whatever else a process may call itself.
func describeProcess(pid, uid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	plain := strings.Map(func(r rune) rune {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(".-_", r) {
			return -1
		}
		return r
	}, string(name))
	return fmt.Sprintf("%s, process %d of user %d", cmp.Or(plain, "a program"), pid, uid)
}

func takeName(netNS int) (name net.Listener, err error) {
	err = inNamespace(netNS, func() (err error) {
		name, err = net.Listen("unix", ownerSocket)
		return err
	})
	return name, err
}

// mayBeAgent reports whether a process has the rights of an agent.
func mayBeAgent(cred *unix.Ucred) bool { return cred.Uid == 0 || int(cred.Uid) == os.Geteuid() }

// describeHolder names who has the socket name, or says why that cannot be told.
func describeHolder(cred *unix.Ucred, err error) string {
	if err != nil {
		return "nobody answers there: " + err.Error()
	}
	return describeProcess(int(cred.Pid), int(cred.Uid))
}

// nameHolder returns the process that listens at the socket name. Of one that does not,
// or that lets connections wait until there is no room for ours, it gives an error.
func nameHolder(netNS int) (cred *unix.Ucred, err error) {
	err = inNamespace(netNS, func() error {
		c, err := net.Dial("unix", ownerSocket)
		if err != nil {
			return err
		}
		defer c.Close()
		raw, err := c.(*net.UnixConn).SyscallConn()
		if err != nil {
			return err
		}
		var e error
		if err := raw.Control(func(fd uintptr) { cred, e = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
			return err
		}
		return e
	})
	return cred, err
}

// inNamespace runs f on a thread of the network namespace. Sockets stay in the
// namespace in which they were made.
func inNamespace(netNS int, f func() error) error {
	if netNS == 0 {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: a thread that has changed its namespace ends with
		// this goroutine instead of serving others.
		runtime.LockOSThread()
		if err := unix.Setns(netNS, unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

package erpcmd

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/userside"
	"github.com/usher-agent/usher/userside/record"
)

// recorded is what "usher erp record" says at its end.
type recorded struct {
	Dir       string           `json:"dir"`
	Exchanges int              `json:"exchanges"`
	Bytes     int64            `json:"bytes"`
	Actions   []recordedAction `json:"actions"`
	Failed    []recordedStep   `json:"failed"` // steps that the server refused; they are recorded too
}

type recordedAction struct {
	Action    string `json:"action"`
	Exchanges int    `json:"exchanges"`
	Bytes     int64  `json:"bytes"`
	Status    int    `json:"status"` // HTTP status of the newest answer; 0: none came
}

type recordedStep struct {
	Step  string `json:"step"`
	Error string `json:"error"`
}

func newERPRecord(c *cli.Program) *cobra.Command {
	var access *erpAccess
	var out, bindings string
	var customers int
	cmd := &cobra.Command{
		Use:   "record --out DIR",
		Short: "Save answers of an ERP as a test case, with names and addresses masked",
		Long: `record makes the reads that the agent makes and saves each answer in DIR, which must be empty or
missing. Names, logins, phones, agreements, comments, addresses, keys and passwords are replaced
before anything is written; the same value gets the same mask everywhere in one recording. The key of
the masks is not saved, so they cannot be turned back.

"usher emulator --replay DIR" serves a recording. Look through the files before you send them.`,
		Example: `  usher erp record --out case --config /etc/usher/usher.yaml
  usher erp record --out case --url https://erp.example.net/api.php --key-file /etc/usher/key
  usher erp record --out case --bindings both --customers 200
  usher emulator --replay case`,
		Args: cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case out == "":
				return cli.Usage(errors.New("--out: want a directory"))
			case customers < 1 || customers > 10_000:
				return cli.Usage(fmt.Errorf("--customers %d: want 1 to 10000", customers))
			}
			client, err := access.options(cmd.InOrStdin(), false)
			if err != nil {
				return err
			}
			as, err := access.asConfigured()
			if err != nil {
				return err
			}
			o := erp.SampleOptions{Fetch: as.Fetch, Customers: customers}
			switch bindings {
			case "":
			case "both":
				o.Both = true
			case "auto", "direct", "composed":
				o.Fetch.Bindings = erp.Mode(bindings)
			default:
				return cli.Usage(fmt.Errorf("--bindings %q: want auto, direct, composed or both", bindings))
			}
			return runRecord(c, cmd, client, o, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "directory to write to; empty or not there yet")
	f.IntVar(&customers, "customers", 20, "customers to read beside what the agent reads")
	f.StringVar(&bindings, "bindings", "", "which source of bindings to read: auto, direct, composed or both (default: as configured)")
	cli.Must(cmd.MarkFlagDirname("out"))
	cli.Must(cmd.RegisterFlagCompletionFunc("bindings", cobra.FixedCompletions([]string{"auto", "direct", "composed", "both"}, cobra.ShellCompDirectiveNoFileComp)))
	access = erpFlags(c, cmd)
	return cmd
}

func runRecord(c *cli.Program, cmd *cobra.Command, co userside.Options, o erp.SampleOptions, dir string) error {
	if _, err := userside.New(co); err != nil { // before the directory is made
		return err
	}
	transport, err := userside.NewTransport(co)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	show, done := progress(cmd.ErrOrStderr())
	sum := recorded{Dir: dir, Actions: []recordedAction{}, Failed: []recordedStep{}}
	what := ""
	o.Progress = func(s string) { what = s }
	rec, err := record.NewRecorder(record.Options{
		Dir: dir, Next: transport, Agent: "usher/" + c.Version, MaxBody: int64(co.MaxAnswer) << 20,
		Saved: func(e record.Exchange) {
			sum.add(e)
			show(fmt.Sprintf("%d exchanges, %s: %s", sum.Exchanges, size(sum.Bytes), what))
		},
	})
	if err != nil {
		return err
	}
	co.Transport, co.CAFile, co.InsecureSkipVerify = rec, "", false
	co.Retries, co.MaxConcurrent = 0, 1
	client, err := userside.New(co)
	if err != nil {
		return errors.Join(err, rec.Close())
	}
	steps, err := erp.Sample(cmd.Context(), client, o)
	done()
	if closeErr := rec.Close(); closeErr != nil {
		return closeErr
	}
	for _, s := range steps {
		if s.Err != nil {
			sum.Failed = append(sum.Failed, recordedStep{s.What, s.Err.Error()})
		}
	}
	_, sum.Bytes = rec.Size()
	if err != nil {
		return fmt.Errorf("the recording in %s has %d exchanges only: %w", dir, sum.Exchanges, err)
	}
	return cli.Show(c, cmd, &sum, printRecorded)
}

func (r *recorded) add(e record.Exchange) {
	r.Exchanges++
	r.Bytes += e.Bytes
	for i := range r.Actions {
		if a := &r.Actions[i]; a.Action == e.Label() {
			a.Exchanges++
			a.Bytes += e.Bytes
			a.Status = e.Status
			return
		}
	}
	r.Actions = append(r.Actions, recordedAction{e.Label(), 1, e.Bytes, e.Status})
}

func printRecorded(w io.Writer, r *recorded) error {
	rows := [][]string{{"ACTION", "ANSWERS", "SIZE", "STATUS"}}
	for _, a := range r.Actions {
		rows = append(rows, []string{a.Action, fmt.Sprint(a.Exchanges), size(a.Bytes), fmt.Sprint(a.Status)})
	}
	if err := cli.Table(w, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, f := range r.Failed {
		fmt.Fprintf(w, "did not go well, and is recorded: %s: %s\n", f.Step, f.Error)
	}
	_, err := fmt.Fprintf(w, `%s: %d exchanges, %s

Names, logins, phones, agreements, comments, addresses, MACs and keys are masked. The key of the masks was
not saved: they cannot be turned back. States, amounts, dates, ports, VLANs and numbers below 1000 are as they were.
Look through the files before you send them. To serve them: usher emulator --replay %s
`, r.Dir, r.Exchanges, size(r.Bytes), r.Dir)
	return err
}

//! Rules of the `ipvsadm` command line.

use super::{error_of, expect};

#[test]
fn ipvsadm_gives_direct_servers_the_port_of_the_service() {
    let saved = "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.0.0.2:8080 -g -w 1\n\
        -a -t 10.0.0.1:80 -r 10.0.0.3:8080 -m -w 1\n";
    expect(
        saved,
        &[
            "line 2: the server 10.0.0.2:8080: without -m ipvsadm takes the port of the service, 80",
            "address = \"10.0.0.2:80\"",
            "address = \"10.0.0.3:8080\"",
        ],
    );
}

#[test]
fn ipvsadm_options_have_several_forms() {
    let saved = "-A -t=10.0.0.1:80 --scheduler=sh -bflag-1,flag-2 --persistent=60\n\
        -a -t 10.0.0.1:80 -r10.0.0.2:80 -m -w7\n-A -t 10.0.0.1:81 -s rr -b flag-1\n";
    expect(
        saved,
        &[
            "scheduler = \"sh(sh-fallback, sh-port)\"",
            "persistence = { timeout = \"60s\" }",
            "weight = 7",
            "line 3: the flag `flag-1` has no effect with the scheduler rr",
        ],
    );
    assert_eq!(
        error_of("-A -t 10.0.0.1:80 -s rr\n-A -t 10.0.0.1:80 -s wrr\n"),
        "line 2: the service tcp 10.0.0.1:80 is added twice"
    );
}

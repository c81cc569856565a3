//! From a file to a ready replica: import, function, setup, example, and what goes wrong on the way.
#![allow(clippy::unwrap_used, unsafe_code, missing_docs)]

mod harness;

use harness::Project;
use millgate_contract::{
    frame::Outcome,
    nursery::{FromReplica, Step},
};

#[test]
fn a_file_is_loaded_whatever_its_name() {
    for file in ["my.model.v2.py", "2nd-try.py", "random.py", "sub folder/predict", "class.py"] {
        let code = "import json, dataclasses, pickle\n@dataclasses.dataclass\nclass P:\n    x: int\ndef f(args):\n    return [json.dumps(pickle.loads(pickle.dumps(P(args))).x), __name__.isidentifier()]\n";
        let template = Project::with_file(file, code, "f").import();
        assert_eq!(template.ready().gateway().answer("3"), r#"["3",true]"#, "{file}");
    }
}

#[test]
fn a_function_file_finds_itself_its_folder_and_its_root() {
    let code = "import os, sys\nimport helper, beside\ndef f(args):\n    os.chdir('elsewhere')\n    import there\n    return [os.path.basename(__file__), sys.path[0], sys.argv, helper.x, beside.x, there.x]\n";
    let project = Project::with_file("code/predict.py", code, "f");
    let root = project.folder.path().to_owned();
    std::fs::write(root.join("helper.py"), "x = 1").unwrap();
    std::fs::write(root.join("code/beside.py"), "x = 2").unwrap();
    std::fs::create_dir(root.join("elsewhere")).unwrap();
    std::fs::write(root.join("elsewhere/there.py"), "x = 3").unwrap();
    let template = project.import();
    let answer = template.ready().gateway().answer("0");
    assert_eq!(answer, r#"["predict.py","",["code/predict.py"],1,2,3]"#);
    assert!(!root.join("__pycache__").exists(), "a build is not written to");
}

#[test]
fn the_environment_is_the_deployments_and_nothing_else() {
    let mut project = Project::new("import os\ndef predict(args):\n    return dict(os.environ)\n");
    project.spec.environment.insert("CDSW_PROJECT".into(), "p".into());
    let answer = project.import().ready().gateway().answer("0");
    let seen: std::collections::BTreeMap<String, String> = serde_json::from_str(&answer).unwrap();
    // Python sets the character type where there is no locale.
    let names: Vec<&str> = seen.keys().map(String::as_str).filter(|name| *name != "LC_CTYPE").collect();
    assert_eq!(names, ["CDSW_PROJECT"]);
}

#[test]
fn a_function_s_timers_are_not_late_for_the_sake_of_others() {
    let code = "def predict(args):\n    return int(open('/proc/self/timerslack_ns').read())\n";
    assert_eq!(Project::new(code).import().ready().gateway().answer("0"), "1");
}

#[test]
fn a_replica_takes_no_processor_from_who_has_woken_it() {
    let code = "import os\ndef predict(args):\n    return os.sched_getscheduler(0) == os.SCHED_BATCH\n";
    assert_eq!(Project::new(code).import().ready().gateway().answer("0"), "true");
}

#[test]
fn a_failed_import_is_named_in_one_line_and_traced_in_the_log() {
    let (failure, log) = Project::new("import os\nimport no_such_module_here\n").import_failure();
    assert_eq!(failure.step, Step::Import);
    assert_eq!(failure.message, "ModuleNotFoundError: No module named 'no_such_module_here'");
    assert!(log.contains("predict.py\", line 2") && !log.contains("<millgate>"), "{log}");
    let (failure, _) = Project::new("def predict(args)\n    return 1\n").import_failure();
    assert_eq!(failure.message, "SyntaxError: expected ':' (predict.py, line 1)");
    let (failure, _) = Project::new("import sys\nsys.exit(2)\n").import_failure();
    assert!(failure.message.contains("`sys.exit(2)`"), "{}", failure.message);
}

#[test]
fn a_missing_file_or_function_is_named_with_what_is_there() {
    let mut project = Project::new("");
    project.spec.function.file = "predcit.py".into();
    let (failure, _) = project.import_failure();
    assert_eq!(failure.step, Step::Import);
    assert_eq!(
        failure.message,
        "there is no file `predcit.py` in the model's root; did you mean `predict.py`?"
    );

    let (failure, _) =
        Project::with_file("a.py", "import os\ndef predict(args): pass\ndef other(): pass\n", "predikt")
            .import_failure();
    assert_eq!(failure.step, Step::Function);
    assert_eq!(failure.message, "`a.py` has no function `predikt`; did you mean `predict`?");

    let (failure, _) = Project::with_file("a.py", "def one(): pass\nx = 3\n", "zzz").import_failure();
    assert_eq!(failure.message, "`a.py` has no function `zzz`; there is `one`");
    let (failure, _) = Project::with_file("a.py", "x = 3\n", "x").import_failure();
    assert_eq!(failure.message, "`x` in `a.py` is of type `int` and cannot be called; name a function");
}

#[test]
fn the_example_is_called_in_each_replica_and_its_answer_handed_on() {
    let template =
        Project::new("def predict(args):\n    return args['a'] * 2\n").example(r#"{"a":4}"#).import();
    for _ in 0..2 {
        let replica = template.fork();
        replica.go();
        assert_eq!(replica.expect_ready().as_deref(), Some("8"));
    }
}

#[test]
fn an_example_that_fails_or_is_no_json_keeps_a_replica_from_being_ready() {
    for (body, message) in [
        ("raise KeyError(args)", "KeyError: 1"),
        (
            "return {1, 2}",
            "the function returned an object of type `set` (hint: use `list(…)` or `sorted(…)`) at `response`, which JSON cannot hold",
        ),
    ] {
        let template = Project::new(&format!("def predict(args):\n    {body}\n")).example("1").import();
        let replica = template.fork();
        replica.go();
        let FromReplica::Failed(failure) = replica.next() else { panic!("not failed") };
        assert_eq!((failure.step, failure.message.as_str()), (Step::Example, message));
        replica.expect_end();
    }
}

#[test]
fn an_example_answer_too_long_for_a_datagram_does_not_keep_it_from_being_ready() {
    let template = Project::new("def predict(args):\n    return 'x' * 1_000_000\n").example("1").import();
    let replica = template.fork();
    replica.go();
    assert_eq!(replica.expect_ready(), None);
    replica.log.wait_for("too long to be shown");
}

#[test]
fn setup_runs_in_each_replica_before_the_example_and_teardown_when_it_is_asked_to_leave() {
    let code = "import os\nstate = []\nasync def setup():\n    state.append(os.getpid())\ndef predict(args):\n    return state == [os.getpid()]\ndef teardown():\n    print('torn down', state == [os.getpid()])\n";
    let template = Project::new(code).example("1").import();
    for _ in 0..2 {
        let replica = template.fork();
        replica.go();
        assert_eq!(replica.expect_ready().as_deref(), Some("true"));
        replica.terminate();
        assert_eq!(replica.expect_leaving(), "asked to leave");
        replica.log.wait_for("torn down True");
        replica.expect_end();
    }
}

#[test]
fn a_setup_that_raises_is_a_failed_start() {
    let code = "def setup():\n    raise OSError('no database')\ndef predict(args):\n    return 1\n";
    let template = Project::new(code).import();
    let replica = template.fork();
    replica.go();
    let FromReplica::Failed(failure) = replica.next() else { panic!("not failed") };
    assert_eq!((failure.step, failure.message.as_str()), (Step::Setup, "OSError: no database"));
}

#[test]
fn a_replica_that_is_never_told_to_go_ends_with_its_supervisor() {
    let template =
        Project::new("def setup():\n    print('set up')\ndef predict(args):\n    return 1\n").import();
    let mut replica = template.fork();
    let (ours, _) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut replica.channel, ours.into()));
    assert!(matches!(template.next(), millgate_contract::nursery::FromTemplate::Exited { .. }));
    assert_eq!(replica.log.whole(), "");
}

#[test]
fn a_spawned_replica_waits_for_its_byte_imports_and_outlives_an_exception() {
    let code =
        "import sys\ndef predict(args):\n    if args == 'exit':\n        sys.exit(1)\n    return 10 / args\n";
    let replica = Project::new(code).example("2").spawn();
    assert_eq!(replica.expect_ready().as_deref(), Some("5.0"));
    let mut gateway = replica.gateway();
    let done = gateway.call("0");
    assert_eq!((done.outcome, done.is_leaving), (Outcome::Exception, false));
    assert_eq!(gateway.answer("5"), "2.0");
    assert!(gateway.call("\"exit\"").is_leaving);
    replica.expect_leaving();
}

#[test]
fn a_spawned_replica_says_why_it_cannot_import() {
    let replica = Project::new("import no_such_module_here\n").spawn();
    let FromReplica::Failed(failure) = replica.next() else { panic!("not failed") };
    assert_eq!(failure.step, Step::Import);
    assert_eq!(failure.message, "ModuleNotFoundError: No module named 'no_such_module_here'");
}

#[test]
fn the_template_does_not_reap_children_that_user_code_started() {
    let code = "import subprocess, sys\nchild = subprocess.Popen(['true'])\ndef setup():\n    pass\ndef predict(args):\n    return 1\n";
    let template = Project::new(code).import();
    let replica = template.ready();
    replica.terminate();
    replica.expect_leaving();
    let millgate_contract::nursery::FromTemplate::Exited { pid, .. } = template.next() else {
        panic!("not reaped")
    };
    assert_eq!(pid, replica.pid);
}

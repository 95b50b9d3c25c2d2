//! MongoDB: a replica set of three members, with the settings that it has by default.

use std::{fs, path::Path};

use mongodb::{
    Client,
    bson::{Bson, Document, doc},
    options::ClientOptions,
};

use crate::{
    Outcome,
    machines::Machine,
    nodes::Variables,
    programs::{Program, installed, until},
};

/// One member.
struct Member {
    place: String,
    client: Client,
    command: std::process::Command,
    log: std::path::PathBuf,
    program: Program,
}

/// A replica set.
pub(crate) struct Set {
    members: Vec<Member>,
}

impl Member {
    async fn start(machine: &Machine, folder: &Path) -> Outcome<Self> {
        fs::create_dir_all(folder)?;
        let port = machine.free_port()?;
        let mut command = machine.command(&installed("DOORWARD_TEST_MONGOD")?, None);
        command.args(["--replSet", "rs0", "--nounixsocket", "--bind_ip"]);
        command.arg(&machine.address);
        command.args(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "256"]);
        command.args(["--port", &port.to_string(), "--dbpath"]);
        command.arg(folder);
        let (log, place) = (
            folder.join("server.log"),
            format!("{}:{port}", machine.address),
        );
        let url = format!("mongodb://{place}/?directConnection=true&serverSelectionTimeoutMS=2000");
        let client = Client::with_options(ClientOptions::parse(url).await?)?;
        let member = Self {
            program: Program::start(&mut command, &log)?,
            place,
            client,
            command,
            log,
        };
        until("MongoDB answers", async || member.hello().await.is_some()).await?;
        Ok(member)
    }

    async fn run(&self, command: Document) -> Outcome<Document> {
        Ok(self.client.database("admin").run_command(command).await?)
    }

    async fn hello(&self) -> Option<Document> {
        self.run(doc! {"hello": 1}).await.ok()
    }

    async fn is(&self, what: &str) -> bool {
        let hello = self.hello().await;
        hello.is_some_and(|hello| hello.get_bool(what).unwrap_or(false))
    }
}

impl Set {
    /// Members on these machines; the first is the primary.
    pub(crate) async fn start(machines: &[&Machine], folder: &Path) -> Outcome<Self> {
        let mut members = Vec::new();
        for (n, machine) in machines.iter().enumerate() {
            members.push(Member::start(machine, &folder.join(format!("member{n}"))).await?);
        }
        let listed: Vec<Bson> = (0..)
            .zip(&members)
            .map(|(n, member): (i32, _)| doc! {"_id": n, "host": &member.place}.into())
            .collect();
        let config = doc! {"_id": "rs0", "members": listed};
        members[0].run(doc! {"replSetInitiate": config}).await?;
        let set = Self { members };
        set.is_whole().await?;
        // Whoever became the primary.
        let first = &set.members[0];
        while !first.is("isWritablePrimary").await {
            let primary = &set.members[set.primary().await?];
            // It may have stepped down by itself, and closes the connection.
            let _ = primary
                .run(doc! {"replSetStepDown": 10, "force": true})
                .await;
            set.is_whole().await?;
        }
        Ok(set)
    }

    /// Waits until there is a primary, and all others follow it.
    pub(crate) async fn is_whole(&self) -> Outcome<()> {
        until("the replica set is whole", async || {
            let mut primaries = 0;
            for member in &self.members {
                if member.is("isWritablePrimary").await {
                    primaries += 1;
                } else if !member.is("secondary").await {
                    return false;
                }
            }
            primaries == 1
        })
        .await
    }

    /// Which one is the primary.
    pub(crate) async fn primary(&self) -> Outcome<usize> {
        for (n, member) in self.members.iter().enumerate() {
            if member.is("isWritablePrimary").await {
                return Ok(n);
            }
        }
        Err("there is no primary".into())
    }

    /// Makes the primary step down.
    pub(crate) async fn step_down(&self) -> Outcome<()> {
        let primary = &self.members[self.primary().await?];
        primary.run(doc! {"replSetStepDown": 60}).await?;
        Ok(())
    }

    /// Makes the second member the primary at once, whether the first one hears of it or not.
    pub(crate) async fn step_up(&self) -> Outcome<()> {
        let second = &self.members[1];
        until("the second member is the primary", async || {
            // Refused while it has not caught up.
            let _ = second.run(doc! {"replSetStepUp": 1}).await;
            second.is("isWritablePrimary").await
        })
        .await
    }

    /// Ends a member at once.
    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member].program.kill();
    }

    /// Starts a member that was killed on what it left.
    pub(crate) fn start_again(&mut self, member: usize) -> Outcome<()> {
        let member = &mut self.members[member];
        member.program = Program::start(&mut member.command, &member.log)?;
        Ok(())
    }

    /// What nodes need to know.
    pub(crate) fn variables(&self, linearizable: bool) -> Variables {
        let places: Vec<&str> = self.members.iter().map(|m| m.place.as_str()).collect();
        let places = places.join(",");
        let url = format!("mongodb://{places}/?replicaSet=rs0&tls=false");
        vec![
            ("DATABASE__BACKEND", "mongodb".to_owned()),
            ("DATABASE__MONGODB__URL", url),
            ("DATABASE__MONGODB__LINEARIZABLE", linearizable.to_string()),
        ]
    }
}
